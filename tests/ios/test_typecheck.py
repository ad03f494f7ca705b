"""All Swift type-checks against the declarations in stubs/, which are Apple's."""

import re

import pytest

from android_demo.host.process import ToolError
from ios_demo.host.project import DEMO_MODULE, ROOT, swift_sources
from ios_demo.host.selectors import check_selectors
from ios_demo.host.typecheck import STUBS, make_module
from runtime.errors import RunnerError


def test_all_sources_type_check(typechecked):
    folders = [ROOT / "Sources", ROOT / DEMO_MODULE, ROOT / f"{DEMO_MODULE}Tests"]
    assert typechecked.count == sum(len(swift_sources(folder)) for folder in folders) > 0


RIGHT = "_ = try model.prediction(from: features)"


@pytest.fixture
def check(toolchain, typechecked):
    """Type-checks a module of one function whose body is ``line``."""

    def check(module: str, line: str, effect: str = "throws") -> None:
        source = typechecked.modules / f"{module}.swift"
        signature = f"func run(_ model: MLModel, _ features: any MLFeatureProvider) {effect}"
        source.write_text(f"import CoreML\n{signature} {{\n    {line}\n}}\n")
        make_module(toolchain, typechecked.modules, module, [f"/tmp/dmf/modules/{source.name}"])

    return check


@pytest.mark.parametrize(
    ("module", "line", "effect", "problem"),
    [
        ("Member", RIGHT.replace("prediction", "predict"), "throws", "value of type 'MLModel' has no member 'predict'"),
        ("Type", RIGHT.replace("_", "let scores: [Double]"), "throws", "cannot convert value of type"),
        ("Flow", "let scores: Int; _ = scores", "", "constant 'scores' used before being initialized"),
        ("Effect", RIGHT, "", "errors thrown from here are not handled"),
    ],
)
def test_an_error_of_types_is_told(check, module, line, effect, problem):
    with pytest.raises(ToolError, match=rf"^{module} does not type-check: \S+/{module}\.swift:3:\d+: error: {problem}"):
        check(module, line, effect)


def test_what_is_right_type_checks(check):
    check("Right", RIGHT)


def test_every_declaration_is_one_of_apple_s(toolchain):
    outcome = check_selectors(toolchain)
    named = sum(len(re.findall(r" // = ", path.read_text())) for path in swift_sources(STUBS))
    assert outcome.found == named > 100


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("-[MLModel predictionFromFeatures:error:]", "-[MLModel predictFromFeatures:error:]"),
        ("-[MLModel predictionFromFeatures:error:]", "+[MLModel predictionFromFeatures:error:]"),
        ("-[MLModel predictionFromFeatures:error:]", "-[MLModel predictionFromFeatures:]"),
        ("-[MLModel predictionFromFeatures:error:]", "-[MLModelAsset predictionFromFeatures:error:]"),
        ("MLFeatureValue.multiArrayValue", "MLFeatureValue.arrayValue"),
        ("MLModelConfiguration.functionName", "MLModelConfiguration.function"),
        ("MLComputeUnits.CPUOnly", "MLComputeUnits.NeuralEngineOnly"),
        ("MLDictionaryFeatureProvider", "MLDictionaryProvider"),
        ("CVPixelBufferCreate()", "CVPixelBufferMake()"),
        ("kCVPixelFormatType_32BGRA", "kCVPixelFormatType_32RGB"),
        ("UIDevice.currentDevice", "UIDevice.theDevice"),
    ],
)
def test_a_wrong_name_is_told(toolchain, right, wrong, tmp_path):
    stub = tmp_path / "Stub.swift"
    stub.write_text(f"public func stub() {{}} // = {right}\n")
    assert check_selectors(toolchain, tmp_path).found == 1
    stub.write_text(f"public func stub() {{}} // = {wrong}\n")
    with pytest.raises(RunnerError, match=rf"Stub\.swift:1: {re.escape(wrong)}; correct"):
        check_selectors(toolchain, tmp_path)


def test_a_declaration_that_says_nothing_is_told(toolchain, tmp_path):
    (tmp_path / "Stub.swift").write_text("import Foundation\n\npublic final class MLModel {}\n")
    with pytest.raises(RunnerError, match=r"Stub\.swift:3: does not say what it stands for"):
        check_selectors(toolchain, tmp_path)
    (tmp_path / "Stub.swift").write_text("// Swift\npublic final class MLModel {}\n")
    assert check_selectors(toolchain, tmp_path).swift_only == 1
