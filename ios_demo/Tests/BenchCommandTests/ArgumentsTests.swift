import DMFClassifier
import XCTest

@testable import dmf_bench_coreml

final class ArgumentsTests: XCTestCase {
    func testDefaults() throws {
        let arguments = try Arguments(["build/tiny"])
        XCTAssertEqual(arguments.package, "build/tiny")
        XCTAssertNil(arguments.function)
        XCTAssertEqual(arguments.computeUnits, [.all, .cpuAndNeuralEngine, .cpuAndGPU, .cpuOnly])
        XCTAssertEqual(arguments.warmup, 10)
        XCTAssertEqual(arguments.repeats, 100)
        XCTAssertFalse(arguments.postProcessing)
        XCTAssertNil(arguments.json)
    }

    func testEveryArgumentIsRead() throws {
        var expected = try Arguments(["build/tiny"])
        expected.function = "size_192"
        expected.computeUnits = [.cpuOnly, .all]
        expected.warmup = 0
        expected.repeats = 7
        expected.postProcessing = true
        expected.json = "a=b.json"
        let words = ["--compute-units", "cpu_only,all,cpu_only", "--warmup", "0", "build/tiny", "--repeats", "7"]
        let more = ["--json", "a=b.json", "--post-processing", "--function", "size_192"]
        XCTAssertEqual(try Arguments(words + more), expected)
        let joined = ["--compute-units=cpu_only,all", "--warmup=0", "--repeats=7", "--json=a=b.json", "build/tiny"]
        XCTAssertEqual(try Arguments(["--post-processing", "--function=size_192"] + joined), expected)
    }

    func testHelpNeedsNoPackage() throws {
        XCTAssertTrue(try Arguments(["--help"]).help)
        XCTAssertTrue(try Arguments(["-h"]).help)
    }

    func testTheUsageNamesEveryArgument() {
        let words = ["PACKAGE", "--function", "--compute-units", "--warmup", "--repeats", "--post-processing", "--json"]
        for word in words + ["--help"] {
            XCTAssertTrue(Arguments.usage.contains("  \(word)") || Arguments.usage.contains(", \(word)"), word)
        }
        for units in ComputeUnits.allCases {
            XCTAssertTrue(Arguments.usage.contains(units.rawValue))
        }
    }

    func testWrongArgumentsAreRefused() {
        let known = "all, cpu_and_neural_engine, cpu_and_gpu, cpu_only"
        let refusals = [
            ([], "0 packages were given, give one (see --help)"),
            (["a", "b"], "2 packages were given, give one (see --help)"),
            (["a", "--threads", "2"], "unknown argument \"--threads\" (see --help)"),
            (["a", "-v=1"], "unknown argument \"-v\" (see --help)"),
            (["a", "--post-processing=no"], "--post-processing takes no value (see --help)"),
            (["a", "--warmup"], "--warmup needs a value (see --help)"),
            (["a", "--warmup", "-1"], "--warmup: \"-1\" is not a whole number >= 0"),
            (["a", "--repeats", "0"], "--repeats: \"0\" is not a whole number >= 1"),
            (["a", "--repeats=many"], "--repeats: \"many\" is not a whole number >= 1"),
            (["a", "--compute-units", "npu"], "--compute-units: compute units \"npu\" are not one of \(known)"),
            (["a", "--compute-units", "all,"], "--compute-units: compute units \"\" are not one of \(known)")
        ]
        for (words, message) in refusals {
            XCTAssertThrowsError(try Arguments(words), "\(words)") { error in
                XCTAssertEqual(error as? UsageError, UsageError(message: message))
            }
        }
    }
}
