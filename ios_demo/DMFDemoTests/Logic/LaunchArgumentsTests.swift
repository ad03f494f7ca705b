import DMFClassifier
import XCTest

@testable import DMFDemo

final class LaunchArgumentsTests: XCTestCase {
    private let whole = [
        "/DMFDemo", "-NSDocumentRevisionsDebugMode", "YES", "--benchmark-run", "run-1", "--package", "dmf_xxs-coreml",
        "--compute-units", "all,cpu_only", "--warmup", "5", "--repeats", "50"
    ]

    func testAWholeRequestIsAPlan() throws {
        let arguments = LaunchArguments(whole)
        XCTAssertTrue(arguments.asksForRun)
        XCTAssertEqual(try arguments.run(), "run-1")
        let plan = try arguments.plan { URL(fileURLWithPath: "/found/\($0)") }
        let expected = try BenchmarkPlan(
            folder: URL(fileURLWithPath: "/found/dmf_xxs-coreml"), computeUnits: [.all, .cpuOnly],
            warmup: 5, repeats: 50
        )
        XCTAssertEqual(plan, expected)
    }

    func testOneFunctionMayBeNamed() throws {
        func function(_ words: [String]) throws -> String? {
            try LaunchArguments(words).plan { URL(fileURLWithPath: "/found/\($0)") }.function
        }
        XCTAssertNil(try function(whole))
        XCTAssertEqual(try function(whole + ["--function", "size_192"]), "size_192")
        XCTAssertEqual(try function(whole + ["--function"]), "", "which no function is called")
    }

    func testPostProcessingIsTimedIfAsked() throws {
        let flag = ["--post-processing"]
        for (words, asked) in [(whole, false), (whole + flag, true), (flag + whole, true)] {
            let plan = try LaunchArguments(words).plan { URL(fileURLWithPath: "/found/\($0)") }
            XCTAssertEqual(plan.postProcessing, asked)
            XCTAssertEqual(plan.repeats, 50)
        }
    }

    func testAnAbsolutePathIsNotLookedUp() throws {
        let arguments = LaunchArguments(whole.map { $0 == "dmf_xxs-coreml" ? "/a/package" : $0 })
        let plan = try arguments.plan { name in throw ArgumentError("looked \(name) up") }
        XCTAssertEqual(plan.folder.path, "/a/package")
    }

    func testNobodyAsksWithoutTheFlag() {
        XCTAssertFalse(LaunchArguments(["/DMFDemo", "--package", "x"]).asksForRun)
        XCTAssertTrue(LaunchArguments(["/DMFDemo", "--benchmark-run"]).asksForRun)
    }

    func testAHostCleansUpWhenAllIsMeasured() {
        XCTAssertEqual(LaunchArguments(["/DMFDemo", "--clean-up", "a-0,a-1"]).cleanUp, ["a-0", "a-1"])
        XCTAssertEqual(LaunchArguments(["/DMFDemo", "--clean-up"]).cleanUp, [])
        XCTAssertNil(LaunchArguments(whole).cleanUp)
        XCTAssertNil(LaunchArguments(whole + ["--clean-up", "dmf_xxs-coreml"]).cleanUp, "it is needed")
    }

    func testWhatCannotBeAFileNameIsRefused() {
        for run in ["", "../x", "a b", "é", String(repeating: "a", count: 65)] {
            XCTAssertThrowsError(try LaunchArguments(["--benchmark-run", run]).run(), run) { error in
                XCTAssertTrue(error.oneLine.hasSuffix("it must be 1 to 64 letters, digits or -"), error.oneLine)
            }
        }
        XCTAssertEqual(try LaunchArguments(["--benchmark-run", String(repeating: "a", count: 64)]).run().count, 64)
    }

    func testWhatIsWrongIsTold() {
        for (from, to, problem) in [
            ("5", "x", "--warmup is \"x\", it must be a whole number"),
            ("5", "-1", "warmup is -1, it must be 0 to 10000"),
            ("50", "0", "repeats is 0, it must be 1 to 10000"),
            ("--repeats", "--reps", "no --repeats; give a value"),
            ("all,cpu_only", "all,all", "compute units are given twice; give them once"),
            (
                "all,cpu_only", "ane",
                "compute units \"ane\" are not one of all, cpu_and_neural_engine, cpu_and_gpu, cpu_only"
            )
        ] {
            let arguments = LaunchArguments(whole.map { $0 == from ? to : $0 })
            XCTAssertThrowsError(try arguments.plan { URL(fileURLWithPath: $0) }, to) { error in
                XCTAssertEqual(error.oneLine, problem)
            }
        }
    }
}
