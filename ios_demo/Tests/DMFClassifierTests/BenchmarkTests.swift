import XCTest

@testable import DMFClassifier

final class BenchmarkTests: FolderTestCase {
    private let device = FakeDevice()
    private let images = 3

    func testSamplesAreExactAndWarmUpIsNotCounted() async throws {
        var runs = 0
        let report = try await measure(timed(warmup: 4) { _ in runs += 1 }, warmup: 4, repeats: 30)
        XCTAssertEqual(report.samplesMs, (1...30).map(Double.init))
        XCTAssertEqual(report.p50Ms, 15.5)
        XCTAssertEqual(report.p90Ms, 27.1, accuracy: 1e-12)
        XCTAssertEqual(report.p99Ms, 29.71, accuracy: 1e-12)
        XCTAssertEqual(report.meanMs, 15.5, accuracy: 1e-12)
        XCTAssertEqual(report.minMs, 1)
        XCTAssertEqual(report.warmupCount, 4)
        XCTAssertEqual(runs, images + 4 + 30)
    }

    func testNoWarmUpCountsAtOnce() async throws {
        let report = try await measure(timed(warmup: 0), warmup: 0, repeats: 1)
        XCTAssertEqual(report.samplesMs, [1])
    }

    func testTheGoldenImagesComeFirstAndTheFirstOfThemIsMeasured() async throws {
        var inputs: [ModelInput] = []
        let report = try await measure(timed(warmup: 1) { inputs.append($0) }, warmup: 1, repeats: 2)
        let package = try Fixtures.openPackage()
        let golden = try XCTUnwrap(package.golden).images.map { Preprocess.input(of: $0, package.manifest.input) }
        XCTAssertEqual(inputs, golden + [golden[0], golden[0], golden[0]])
        XCTAssertEqual(report.input, "golden image 0: noise 0")
        XCTAssertEqual(report.selfTest?.passed, true)
    }

    func testWithoutGoldenVectorsNoiseIsMeasured() async throws {
        let package = try ModelPackage(contentsOf: copyArtifactAlone())
        var inputs: [[Float]] = []
        let predictor = ChangedPredictor(try DensePredictor()) { _, input, logits in
            if case .tensor(let values) = input { inputs.append(values) }
            return logits
        }
        let benchmark = try Benchmark(of: package, model: FakeModel { _ in predictor }, on: device) { true }
        let report = try await benchmark.measure(.all, warmup: 2, repeats: 30)
        XCTAssertEqual(report.input, "noise, SplitMix64 seed 0")
        XCTAssertNil(report.selfTest)
        XCTAssertEqual(report.invalidBecause, [])
        XCTAssertEqual(inputs.count, 32)
        XCTAssertEqual(Set(inputs).count, 1)
        XCTAssertGreaterThan(Set(inputs[0]).count, 100)
    }

    func testOpeningIsTimed() async throws {
        let package = try Fixtures.openPackage()
        let predictor = try DensePredictor()
        device.peakBytes = 200
        let model = FakeModel { [device] units in
            XCTAssertEqual(units, .cpuAndGPU)
            device.pass(ms: 12.5)
            device.peakBytes = 300
            return predictor
        }
        let benchmark = try Benchmark(of: package, model: model, on: device) { true }
        let report = try await benchmark.measure(.cpuAndGPU, warmup: 0, repeats: 1)
        XCTAssertEqual(report.coldLoadMs, 12.5)
        XCTAssertEqual(report.baselineMemoryBytes, 200)
        XCTAssertEqual(report.peakMemoryBytes, 300)
        XCTAssertEqual(report.artifactSHA256, package.artifactSHA256)
        XCTAssertEqual(report.manifest, package.manifest)
    }

    func testThePlanOfTheModelIsReported() async throws {
        let predictor = try DensePredictor()
        let model = FakeModel { _ in predictor }
        model.plan = ComputePlan(
            [PlannedOperation(type: "ios17.linear", outputs: ["logits"], preferred: .gpu)], modules: []
        )
        let benchmark = try Benchmark(of: Fixtures.openPackage(), model: model, on: device) { true }
        let report = try await benchmark.measure(.all, warmup: 0, repeats: 1)
        XCTAssertEqual(report.computePlan, model.plan)
    }

    func testWrongAnswersAreMeasuredAndFlagged() async throws {
        let wrong = try await measure(frozenPredictor(), warmup: 0, repeats: 30)
        XCTAssertEqual(wrong.invalidBecause, [.wrongAnswers])
        let right = try await measure(DensePredictor(), warmup: 0, repeats: 30)
        XCTAssertEqual(right.invalidBecause, [])
    }

    func testTheStateIsReadBeforeOpeningAndAfterTheLastRun() async throws {
        let predictor = ChangedPredictor(try DensePredictor()) { [device] run, _, logits in
            device.currentState.batteryPercent = run
            return logits
        }
        let report = try await measure(predictor, warmup: 2, repeats: 5)
        XCTAssertEqual(report.before.batteryPercent, 80)
        XCTAssertEqual(report.after.batteryPercent, images + 2 + 5 - 1)
        XCTAssertEqual(report.device, device.description)
        XCTAssertEqual(report.measuredAt, device.now())
        XCTAssertEqual(report.runtime, fakeRuntime)
    }

    func testLeavingTheForegroundOnceIsFlagged() async throws {
        for (leftAt, flags) in [(0, [Flag.notForeground]), (17, [.notForeground]), (30, [.notForeground]), (31, [])] {
            let asked = Counter()
            let report = try await measure(DensePredictor(), warmup: 0, repeats: 30) { asked.next() != leftAt }
            XCTAssertEqual(report.invalidBecause, flags, "\(leftAt)")
            XCTAssertEqual(asked.next(), 31)
        }
    }

    func testCancellingEndsItAfterTheRun() async throws {
        let package = try Fixtures.openPackage()
        let last = images + 4 + 10
        let runs = Counter()
        let predictor = ChangedPredictor(try DensePredictor()) { _, _, logits in
            if runs.next() + 1 == last { withUnsafeCurrentTask { $0?.cancel() } }
            return logits
        }
        let model = FakeModel { _ in predictor }
        let benchmark = try Benchmark(of: package, model: model, on: device) { true }
        let task = Task { try await benchmark.measure(.all, warmup: 4, repeats: 100) }
        await assertThrows({ try await task.value }, { XCTAssertTrue($0 is CancellationError, "\($0)") })
        XCTAssertEqual(runs.next(), last)
    }

    func testAPredictorThatFailsEndsIt() async throws {
        let predictor = ChangedPredictor(try DensePredictor()) { run, _, logits in
            if run == 9 { throw PredictorError("no more") }
            return logits
        }
        await assertThrows({ try await self.measure(predictor, warmup: 2, repeats: 9) }, { error in
            XCTAssertEqual(error as? PredictorError, PredictorError("no more"))
        })
    }

    func testSimulatorsAreRefused() throws {
        device.isSimulator = true
        let package = try Fixtures.openPackage()
        let model = FakeModel { _ in throw PredictorError("it was opened") }
        assertPredictorError("this is a simulator, its time is not latency; use a phone, or dmf-bench-coreml") {
            try Benchmark(of: package, model: model, on: device) { true }
        }
    }

    func testNumbersOutOfRangeAreRefused() async throws {
        let predictor = try DensePredictor()
        for (message, warmup, repeats) in [
            ("warmup is -1, it must be >= 0", -1, 1),
            ("repeats is 0, it must be >= 1", 0, 0)
        ] {
            await assertThrows({ try await self.measure(predictor, warmup: warmup, repeats: repeats) }, { error in
                XCTAssertEqual(error as? PredictorError, PredictorError(message))
            })
        }
    }

    /// Takes 7 ms for each golden image, 5 s for each warm-up run, and 1, 2, 3... ms for those that count.
    private func timed(warmup: Int, seen: @escaping (ModelInput) -> Void = { _ in }) throws -> ChangedPredictor {
        ChangedPredictor(try DensePredictor()) { [device, images] run, input, logits in
            seen(input)
            switch run - images {
            case ..<0: device.pass(ms: 7)
            case 0..<warmup: device.pass(ms: 5000)
            default: device.pass(ms: Double(run - images - warmup + 1))
            }
            return logits
        }
    }

    private func measure(
        _ predictor: any Predictor, warmup: Int, repeats: Int, isForeground: @escaping @Sendable () -> Bool = { true }
    ) async throws -> LatencyReport {
        let model = FakeModel { _ in predictor }
        let package = try Fixtures.openPackage()
        let benchmark = try Benchmark(of: package, model: model, on: device, isForeground: isForeground)
        return try await benchmark.measure(.all, warmup: warmup, repeats: repeats)
    }
}

/// Counts from 0. It is used by one task at a time.
final class Counter: @unchecked Sendable {
    private var count = 0

    func next() -> Int {
        defer { count += 1 }
        return count
    }
}
