import DMFClassifier
import XCTest

@testable import DMFDemo

final class BenchmarkPlanTests: XCTestCase {
    private let compile: Compile = { FakeModel(package: $0) }

    private func measure(
        _ units: [ComputeUnits], of folder: URL = Fixtures.packageFolder, function: String? = nil,
        on device: FakeDevice = FakeDevice(), postProcessing: Bool = false, foreground: Foreground,
        begin: (BenchmarkStep) -> Void = { _ in }
    ) async throws -> [LatencyReport] {
        let plan = try BenchmarkPlan(
            folder: folder, function: function, computeUnits: units, warmup: 2, repeats: 40,
            postProcessing: postProcessing
        )
        return try await plan.measure(on: device, compile: compile, foreground: foreground, begin: begin)
    }

    private var inFront: Foreground {
        let foreground = Foreground()
        foreground.set(active: true)
        return foreground
    }

    func testEachIsMeasuredInTurn() async throws {
        var begun: [BenchmarkStep] = []
        let reports = try await measure([.cpuOnly, .all], foreground: inFront) { begun.append($0) }
        XCTAssertEqual(begun.map(\.index), [0, 1])
        XCTAssertEqual(begun.map(\.count), [2, 2])
        XCTAssertEqual(begun.map(\.computeUnits), [.cpuOnly, .all])
        XCTAssertEqual(reports.map(\.runtime.computeUnits), [.cpuOnly, .all])
        XCTAssertEqual(reports.map(\.samplesMs), [Array(repeating: 1, count: 40), Array(repeating: 1, count: 40)])
        XCTAssertEqual(reports.map(\.invalidBecause), [[], []])
        let row = ReportRow(reports[0]).cells.map(\.text)
        XCTAssertEqual(row, ["8 × 8 px", "cpu_only", "1.0", "1.0", "1.0", "1.0", "1.0", "valid"])
        XCTAssertEqual(row.count, ReportRow.columns.count)
    }

    func testEachFunctionIsMeasuredOrTheOneThatIsNamed() async throws {
        var begun: [BenchmarkStep] = []
        let reports = try await measure([.all, .cpuOnly], of: Fixtures.sizesFolder, foreground: inFront) {
            begun.append($0)
        }
        XCTAssertEqual(begun.map(\.input.cropWidth), [8, 8, 6, 6])
        XCTAssertEqual(begun.map(\.index), [0, 1, 2, 3])
        XCTAssertEqual(begun.map(\.count), [4, 4, 4, 4])
        XCTAssertEqual(reports.map(\.runtime.computeUnits), [.all, .cpuOnly, .all, .cpuOnly])
        XCTAssertEqual(reports.map(\.selfTest?.passed), [true, true, true, true])
        XCTAssertEqual(Set(reports.map { ReportRow($0).id }).count, 4)
        let one = try await measure([.all], of: Fixtures.sizesFolder, function: "size_6", foreground: inFront)
        XCTAssertEqual(one.map(\.manifest.name), ["tiny-coreml-sizes-fp16:size_6"])
        do {
            _ = try await measure([.all], function: "size_6", foreground: inFront)
            XCTFail("measured")
        } catch {
            XCTAssertEqual(error.oneLine, "tiny-coreml-fp16 has no function \"size_6\", it has but one; name none")
        }
    }

    func testADetectorIsMeasuredWithOrWithoutChoosingItsObjects() async throws {
        for (asked, expected) in [(false, PostProcessing.none), (true, .runner)] {
            let reports = try await measure(
                [.all], of: Fixtures.detectorFolder, postProcessing: asked, foreground: inFront
            )
            XCTAssertEqual(reports.map(\.postProcessing), [expected])
            XCTAssertEqual(reports.map(\.selfTest?.passed), [true])
            let classifiers = try await measure([.all], postProcessing: asked, foreground: inFront)
            XCTAssertEqual(classifiers.map(\.postProcessing), [nil])
        }
    }

    func testAnAppThatIsNotInFrontMeasuresNothingValid() async throws {
        let away = Foreground()
        let reports = try await measure([.all], foreground: away)
        XCTAssertEqual(reports[0].invalidBecause, [.notForeground])
        XCTAssertEqual(ReportRow(reports[0]).cells.last?.text, "not valid")
    }

    func testTheFirstThatFailsIsTold() async throws {
        do {
            _ = try await measure([.all, .cpuAndGPU], foreground: inFront)
            XCTFail("measured")
        } catch {
            XCTAssertEqual(error.oneLine, "this device has no GPU")
        }
    }

    func testASimulatorIsRefused() async throws {
        do {
            _ = try await measure([.all], on: FakeDevice(isSimulator: true), foreground: inFront)
            XCTFail("measured")
        } catch {
            XCTAssertTrue(error.oneLine.hasPrefix("this is a simulator"), error.oneLine)
        }
    }

    func testTheForegroundIsKeptOnlyWithoutABreak() {
        let foreground = inFront
        foreground.watch()
        XCTAssertTrue(foreground.wasKept)
        foreground.set(active: false)
        foreground.set(active: true)
        XCTAssertFalse(foreground.wasKept)
        foreground.watch()
        XCTAssertTrue(foreground.wasKept)
    }

    func testARunIsWrittenWhole() async throws {
        try await withFolder { folder in
            let runs = Runs(folder: folder.appendingPathComponent("runs"))
            try runs.write(Data("old".utf8), of: "a")
            try runs.write(errorDocument("no \"such\" thing"), of: "a")
            let names = try FileManager.default.contentsOfDirectory(atPath: runs.folder.path)
            XCTAssertEqual(names, ["a.json"])
            let json = try JSONDecoder().decode(
                [String: String].self, from: Data(contentsOf: runs.folder.appendingPathComponent("a.json"))
            )
            XCTAssertEqual(json, ["error": "no \"such\" thing"])
            runs.forget("a")
            XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: runs.folder.path), [])
            try runs.write(Data("b".utf8), of: "b")
            runs.forgetAll()
            XCTAssertFalse(FileManager.default.fileExists(atPath: runs.folder.path))
        }
    }
}
