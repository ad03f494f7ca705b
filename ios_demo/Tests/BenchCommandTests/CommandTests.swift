import DMFClassifier
import XCTest

@testable import dmf_bench_coreml

final class CommandTests: XCTestCase {
    private let package = fixtures.appendingPathComponent("package-coreml").path
    private let sizes = fixtures.appendingPathComponent("package-coreml-sizes").path
    private let file = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString).json")

    override func tearDown() {
        try? FileManager.default.removeItem(at: file)
    }

    func testEachOfTheComputeUnitsIsMeasuredAndPrinted() async throws {
        let result = await run([package, "--repeats", "30"])
        XCTAssertEqual(result.code, 0)
        XCTAssertEqual(result.complaints, [])
        let lines = result.output.joined().split(separator: "\n").map(String.init)
        XCTAssertEqual(lines.count, 5)
        XCTAssertTrue(lines[0].hasPrefix("package           on"), lines[0])
        for (line, units) in zip(lines.dropFirst(), ComputeUnits.allCases) {
            let cells = line.split(separator: " ").map(String.init)
            XCTAssertEqual(Array(cells.prefix(3)), ["tiny-coreml-fp16", "Mac99,1", units.rawValue])
            XCTAssertEqual(Array(cells.suffix(5)), ["2.000", "2.000", "2.000", "5.000", "64"])
            XCTAssertEqual(line.count, lines[0].count)
        }
    }

    func testEachFunctionIsMeasuredOrTheOneThatIsNamed() async throws {
        let words = [sizes, "--repeats", "2", "--compute-units", "all,cpu_only", "--json", "-"]
        let name = "tiny-coreml-sizes-fp16"
        for (more, names, units) in [
            (
                [], ["\(name):main", "\(name):main", "\(name):size_6", "\(name):size_6"],
                ["all", "cpu_only", "all", "cpu_only"]
            ),
            (["--function", "size_6"], ["\(name):size_6", "\(name):size_6"], ["all", "cpu_only"])
        ] {
            let result = await run(words + more)
            XCTAssertEqual(result.code, 0)
            let reports = try document(Data(result.output.joined().utf8))
            XCTAssertEqual(reports.map { $0["package"] as? String }, names)
            XCTAssertEqual(reports.map { $0["accelerator"] as? String }, units)
            XCTAssertTrue(reports.allSatisfy { ($0["golden"] as? [String: Any])?["passed"] as? Bool == true })
        }
    }

    func testADetectorIsMeasuredWithOrWithoutChoosingItsObjects() async throws {
        let detector = fixtures.appendingPathComponent("package-detector-coreml").path
        for (more, expected) in [([], "none"), (["--post-processing"], "runner")] {
            let result = await run([detector, "--repeats", "2", "--compute-units", "all", "--json", "-"] + more)
            XCTAssertEqual(result.code, 0)
            let reports = try document(Data(result.output.joined().utf8))
            XCTAssertEqual(reports.map { $0["post_processing"] as? String }, [expected])
            XCTAssertTrue(reports.allSatisfy { ($0["golden"] as? [String: Any])?["passed"] as? Bool == true })
        }
        let classifier = await run([package, "--repeats", "2", "--json", "-", "--post-processing"])
        let reports = try document(Data(classifier.output.joined().utf8))
        XCTAssertTrue(reports.allSatisfy { $0["post_processing"] is NSNull })
    }

    func testTheDocumentIsWrittenAsideOrToStdout() async throws {
        let words = [package, "--repeats", "2", "--compute-units", "cpu_only,all"]
        let aside = await run(words + ["--json", file.path])
        XCTAssertEqual(aside.code, 0)
        XCTAssertTrue(aside.output.joined().contains("p50 ms"))
        let table = try document(Data(contentsOf: file))
        XCTAssertEqual(table.map { $0["accelerator"] as? String }, ["cpu_only", "all"])
        XCTAssertEqual(table.map { $0["on"] as? String }, ["macos", "macos"])
        XCTAssertEqual(table.map { ($0["samples_ms"] as? [Double])?.count }, [2, 2])
        let stdout = await run(words + ["--json", "-"])
        XCTAssertEqual(stdout.code, 0)
        XCTAssertEqual(try document(Data(stdout.output.joined().utf8)).count, 2)
    }

    func testWhatMakesFiguresInvalidIsSaid() async {
        let result = await run([package, "--repeats", "3", "--compute-units", "all"], wrong: true)
        XCTAssertEqual(result.code, 0)
        let lines = result.output.joined().split(separator: "\n").map(String.init)
        XCTAssertEqual(Array(lines.dropFirst(2)), [
            "not valid: tiny-coreml-fp16 Mac99,1 all: too_few_samples",
            "not valid: tiny-coreml-fp16 Mac99,1 all: wrong_answers"
        ])
    }

    func testUnitsThatFailDoNotKeepTheOthersFromBeingMeasured() async throws {
        let words = [package, "--json", file.path, "--repeats", "2", "--compute-units", "all,cpu_only"]
        let result = await run(words, failing: [.all])
        XCTAssertEqual(result.code, 5)
        XCTAssertEqual(result.complaints, ["dmf-bench-coreml: error: tiny-coreml-fp16 on all: no such unit"])
        XCTAssertEqual(try document(Data(contentsOf: file)).count, 1)
        let none = await run(words, failing: [.all, .cpuOnly])
        XCTAssertEqual(none.code, 5)
        XCTAssertEqual(none.output, [])
        XCTAssertEqual(none.complaints, [
            "dmf-bench-coreml: error: tiny-coreml-fp16 on all: no such unit; tiny-coreml-fp16 on cpu_only: no such unit"
        ])
    }

    func testWrongArgumentsAndPackagesEndWith2() async {
        let nowhere = "/nowhere/at/all"
        for (words, complaint) in [
            ([], "0 packages were given, give one (see --help)"),
            ([nowhere], "\(nowhere): no manifest.json in it; give a package that dmf-export wrote"),
            (
                [package, "--json", "\(nowhere)/a.json"],
                "--json: \(nowhere): no such folder; make it, or give another FILE"
            ),
            ([package, "--json", package], "--json: \(package): is a folder; give a FILE"),
            (
                [package, "--function", "main"],
                "tiny-coreml-fp16 has no function \"main\", it has but one; name none"
            ),
            (
                [sizes, "--function", "size_192"],
                "tiny-coreml-sizes-fp16 has no function \"size_192\", only: main, size_6"
            )
        ] {
            let result = await run(words)
            XCTAssertEqual(result.code, 2, complaint)
            XCTAssertEqual(result.complaints, ["dmf-bench-coreml: error: \(complaint)"])
            XCTAssertEqual(result.output, [])
        }
    }

    func testWhereThereIsNoCoreMLItEndsWith5() async {
        var complaints: [String] = []
        let command = Command(runtime: nil, output: { _ in }, complain: { complaints.append($0) })
        let code = await command.run([package])
        XCTAssertEqual(code, 5)
        XCTAssertEqual(complaints.count, 1)
        XCTAssertTrue(complaints[0].hasPrefix("dmf-bench-coreml: error: Core ML runs on Apple devices, this is "))
    }

    private func document(_ data: Data) throws -> [[String: Any]] {
        let document = try XCTUnwrap(JSONSerialization.jsonObject(with: data) as? [String: Any])
        return try XCTUnwrap(document["reports"] as? [[String: Any]])
    }

    private func run(
        _ words: [String], failing: [ComputeUnits] = [], wrong: Bool = false
    ) async -> (code: Int32, output: [String], complaints: [String]) {
        var output: [String] = []
        var complaints: [String] = []
        let device = StillDevice()
        let runtime = Command.Runtime(device: device) { package in
            StillModel(package: package, device: device, failing: failing, wrong: wrong)
        }
        let command = Command(
            runtime: runtime, output: { output.append($0) }, complain: { complaints.append($0) }
        )
        let code = await command.run(words)
        return (code, output, complaints)
    }
}

private let fixtures = ProcessInfo.processInfo.environment["DMF_FIXTURES"].map { URL(fileURLWithPath: $0) }
    ?? URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .appendingPathComponent("../../../tests/fixtures").standardizedFileURL

/// A Mac that is never warm. It is used by one task at a time.
private final class StillDevice: MeasuredDevice, @unchecked Sendable {
    let isSimulator = false
    let description = DeviceDescription(
        platform: .macOS, model: "Mac99,1", majorOSVersion: 15, os: "macOS 15.1", machine: "arm64", cpu: "Apple M99",
        logicalCores: 8, app: "dmf-bench-coreml 0.1.0"
    )
    private var time: UInt64 = 0

    func pass(ms: UInt64) { time += ms * 1_000_000 }
    func state() -> DeviceState {
        DeviceState(
            thermalStatus: 0, batteryPercent: nil, charging: nil, batterySaver: false, screenOn: nil, loadAverage: 0.5
        )
    }
    func peakMemoryBytes() -> Int { 64 << 20 }
    func nanoseconds() -> UInt64 { time }
    func now() -> Date { Date(timeIntervalSince1970: 0) }
}

/// Opens in 5 ms and answers what the golden vectors have in 2 ms, or something else where it is wrong.
private struct StillModel: OpenableModel {
    let package: ModelPackage
    let device: StillDevice
    let failing: [ComputeUnits]
    let wrong: Bool

    func open(on computeUnits: ComputeUnits) throws -> any Predictor {
        if failing.contains(computeUnits) { throw PredictorError("no such unit") }
        device.pass(ms: 5)
        return StillPredictor(
            runtime: RuntimeInfo(name: "coreml", version: "macOS 15.1", computeUnits: computeUnits), model: self
        )
    }

    func computePlan(on computeUnits: ComputeUnits) async throws -> ComputePlan? { nil }
}

private struct StillPredictor: Predictor {
    let runtime: RuntimeInfo
    let model: StillModel

    func outputs(for input: ModelInput) throws -> Outputs {
        model.device.pass(ms: 2)
        let golden = try XCTUnwrap(model.package.golden)
        let spec = model.package.manifest.input
        let index = try XCTUnwrap(golden.images.firstIndex { Preprocess.input(of: $0, spec) == input })
        return answers(golden, model.wrong ? 2 - index : index)
    }
}

/// What a network answers whose golden vectors these are, object i is of anchor i of 6.
private func answers(_ golden: Golden, _ index: Int) -> Outputs {
    switch golden.answers {
    case .logits(let logits, _):
        return ["logits": Tensor(shape: [1, logits[index].count], values: logits[index].map(Float.init))]
    case .objects(let objects, _):
        var (scores, boxes) = ([Float](repeating: 0, count: 6 * 5), [Float](repeating: 0, count: 6 * 4))
        for (anchor, expected) in objects[index].enumerated() {
            let box = expected.object.box
            scores[anchor * 5 + expected.object.label] = Float(expected.object.score)
            boxes.replaceSubrange(anchor * 4..<anchor * 4 + 4, with: [box.x1, box.y1, box.x2, box.y2].map(Float.init))
        }
        return ["scores": Tensor(shape: [1, 6, 5], values: scores), "boxes": Tensor(shape: [1, 6, 4], values: boxes)]
    }
}
