"""What stubs/ declares is in Apple's frameworks, and is declared there as it is here."""

import re
import shutil

import pytest

from ios_demo.host.project import swift_sources
from ios_demo.host.selectors import check_selectors
from ios_demo.host.typecheck import STUBS
from runtime.errors import RunnerError

OF_A_CLASS = "+[MLModel compileModelAtURL:completionHandler:]"
PREDICTION = "func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider"
COMPILE = "static func compileModel(at url: URL) async throws -> URL"
CREATE = "_ width: Int, _ height: Int, _ format: OSType, _ attributes: CFDictionary?"


def test_every_declaration_is_one_of_apple_s(toolchain):
    outcome = check_selectors(toolchain)
    text = "\n".join(path.read_text() for path in swift_sources(STUBS))
    assert outcome.found == len(re.findall(r" // = ", text)) > 100
    assert outcome.uncompared == len(re.findall(r"; not compared: ", text)) < 10


@pytest.fixture
def refused(toolchain, tmp_path):
    """Puts ``new`` for ``old`` in a copy of stubs/, and returns what is said of it, which is one line."""

    def refused(file: str, old: str, new: str) -> str:
        stubs = shutil.copytree(STUBS, tmp_path / "stubs")
        (path,) = stubs.rglob(f"{file}.swift")
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
        with pytest.raises(RunnerError) as error:
            check_selectors(toolchain, stubs)
        line = 1 + text[: text.index(old)].count("\n")
        told = str(error.value)
        assert told.startswith("1 ") and f"/{file}.swift:{line}: " in told and "\n" not in told
        return told

    return refused


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("CoreML", "-[MLModel predictionFromFeatures:error:]", "-[MLModel predictFromFeatures:error:]"),
        ("CoreML", "-[MLModel predictionFromFeatures:error:]", "+[MLModel predictionFromFeatures:error:]"),
        ("CoreML", "-[MLModel predictionFromFeatures:error:]", "-[MLModel predictionFromFeatures:]"),
        ("CoreML", OF_A_CLASS, OF_A_CLASS.replace("MLModel ", "MLModelAsset ")),
        ("CoreML", "MLFeatureValue.multiArrayValue", "MLFeatureValue.arrayValue"),
        ("CoreML", "MLComputeUnits.CPUOnly", "MLComputeUnits.NeuralEngineOnly"),
        ("CoreML", "// = MLDictionaryFeatureProvider", "// = MLDictionaryProvider"),
        ("CoreVideo", "= CVPixelBufferCreate()", "= CVPixelBufferMake()"),
        ("CoreVideo", "= kCVPixelFormatType_32BGRA", "= kCVPixelFormatType_32RGB"),
        ("UIKit", "UIDevice.currentDevice", "UIDevice.theDevice"),
    ],
)
def test_a_wrong_name_is_told(refused, file, right, wrong):
    name = wrong.removeprefix("// ").removeprefix("= ")
    assert f": {name}; correct" in refused(file, right, wrong)


@pytest.mark.parametrize(
    ("file", "right", "wrong", "told"),
    [
        ("CoreML", "(at url: URL)", "(at url: URL, times: Int)", "one takes 2, the other 1"),
        ("CoreML", "(at url: URL)", "(at url: String)", "url is string, not NSURL"),
        ("CoreML", "(at url: URL)", "(at url: URL?)", "url is NSURL | null, not NSURL"),
        ("CoreML", "(at url: URL)", "(at url: Link)", "neither stubs/ nor IN_TYPESCRIPT says what Link is"),
        ("CoreML", COMPILE, COMPILE[len("static ") :], "one is static, the other is not"),
        ("CoreML", COMPILE, COMPILE.replace(" async", ""), "one is async, the other is not"),
        ("CoreML", COMPILE, COMPILE.replace("throws ", ""), "one throws, the other does not"),
        ("CoreML", COMPILE, COMPILE.replace("-> URL", "-> URL?"), "it gives NSURL | null, not NSURL"),
        ("CoreML", PREDICTION, f"static {PREDICTION}", "one is static, the other is not"),
        ("CoreML", PREDICTION, PREDICTION.replace(" throws", ""), "one throws, the other does not"),
        ("CoreML", PREDICTION, PREDICTION.split(" ->")[0], "it gives void, not MLFeatureProvider"),
        ("CoreML", "MLMultiArray?", "MLMultiArray", "gives MLMultiArray, not MLMultiArray | null"),
        ("CoreML", "var multiArrayValue: MLMultiArray?", "func value() -> MLMultiArray?", "the other a method"),
        ("CoreML", "count: Int { fatal", "count: Int { get { fatalError() } set { fatal", "Apple's is read-only"),
        ("CoreML", "(shape: [NSNumber]", "(shape: [String]", "shape is NSArray<string>, not NSArray<number>"),
        ("CoreML", "var shape: [NSNumber]", "var shape: [Int?]", "gives NSArray<number | null>, not NSArray<number>"),
        ("CoreML", "init(dictionary: [String: Any]) throws", "init?(dictionary: [String: Any]) throws", "| null"),
        ("CoreML", "class MLModel:", "protocol MLModel:", "Apple's is no protocol"),
        ("CoreML", "public protocol MLFeatureProvider", "class MLFeatureProvider", "Apple's is no class"),
        ("CoreML", "class MLMultiArray {", "class MLMultiArray: MLFeatureProvider {", "is no MLFeatureProvider"),
        ("CoreML", "= MLMultiArray.count", "= MLArrayBatchProvider.count", "one is of MLMultiArray, the other of"),
        ("ComputePlan", "program(Program)", "program(Pipeline)", "it gives MLModelStructurePipeline, not"),
        ("ComputePlan", "[String: Function]", "[Function]", "not NSDictionary<string, MLModelStr"),
        ("CoreVideo", CREATE, CREATE[:-1], "attributes is NSDictionary<any, any>, not NSDict"),
        ("CoreVideo", CREATE, CREATE.replace(", _ height: Int", ""), "one takes 5, the other 6"),
        ("CoreVideo", "<CVPixelBuffer?>", "<CVPixelBuffer>", "out is pointer<any>, not pointer<any | null>"),
        ("CoreVideo", "static var readOnly", "var readOnly", "one is static, the other is not"),
        ("CoreGraphics", "var width", "static var width", "one is static, the other is not"),
        ("CoreGraphics", "translateBy(x: CGFloat, y: CGFloat)", "translateBy()", "one takes 0, the other 2"),
        ("CoreGraphics", "not compared: name (", "not compared: title (", "name is string, not string | null"),
        ("CoreMedia", "CVImageBuffer?", "CVImageBuffer", "it gives any, not any | null"),
        ("CoreGraphics", "decode: UnsafePointer<CGFloat>?", "decode: UnsafePointer<CGFloat>", "decode is"),
        ("AVFoundation", "async -> Bool", "async -> Int", "it gives number, not boolean"),
    ],
)
def test_a_wrong_signature_is_told(refused, file, right, wrong, told):
    said = refused(file, right, wrong)
    assert re.search(rf": declared `[^`]+`, Apple's `[^`]+`: [^`]*{re.escape(told)}", said), said


def test_what_is_not_compared_must_differ(refused):
    name = "+[MLModelConfiguration new]"
    assert "they are the same" in refused("CoreML", name, f"{name}; not compared: all (no reason)")


def test_what_is_not_compared_must_say_why(toolchain, tmp_path):
    (tmp_path / "Stub.swift").write_text("public func stub() {} // = CGImageCreate(); not compared: all\n")
    with pytest.raises(RunnerError, match=r"Stub\.swift:1: does not say what it stands for"):
        check_selectors(toolchain, tmp_path)


def test_a_declaration_that_says_nothing_is_told(toolchain, tmp_path):
    (tmp_path / "Stub.swift").write_text("import Foundation\n\npublic final class MLModel {}\n")
    with pytest.raises(RunnerError, match=r"Stub\.swift:3: does not say what it stands for"):
        check_selectors(toolchain, tmp_path)
    (tmp_path / "Stub.swift").write_text("// Swift\npublic final class MLModel {}\n")
    assert check_selectors(toolchain, tmp_path).swift_only == 1
