import XCTest

@testable import DMFClassifier

final class LatencyReportTests: XCTestCase {
    private let device = FakeDevice()

    func testEveryFieldIsWritten() async throws {
        let json = try written(await measured(DensePredictor(), repeats: 30))
        var expected = try JSON(
            parsing: #"""
            {"package": "tiny-coreml-fp16", "model": "tiny", "format": "coreml", "precision": "fp16",
             "target": "coreml-ane", "on": "ios", "accelerator": "all", "threads": 6,
             "artifact_sha256": "787279c33c68dbf688a9bb548d156932563c10f83a43fb34a788a282e9d06f22",
             "runtime": {"name": "coreml", "version": "macOS 15.1", "delegate_partitions": null},
             "input": "golden image 0: noise 0", "post_processing": null, "warmup_count": 1,
             "cold_load_ms": 0, "p50_ms": 2.25, "p90_ms": 2.25, "p99_ms": 2.25, "mean_ms": 2.25, "min_ms": 2.25,
             "baseline_memory_bytes": 123456512, "peak_memory_bytes": 123456512, "invalid_because": [],
             "compute_plan": null}
            """#
        )
        expected["samples_ms"] = .list([JSON](repeating: .double(2.25), count: 30))
        expected["golden"] = json["golden"]
        expected["conditions"] = json["conditions"]
        XCTAssertEqual(json, expected)
        let golden = try XCTUnwrap(json["golden"]?.object)
        XCTAssertEqual(golden.keys.sorted(), ["budget_abs_error", "image", "max_abs_error", "passed"])
        XCTAssertEqual(golden["passed"], .bool(true))
        let error = try XCTUnwrap(golden["max_abs_error"]?.number)
        XCTAssertLessThan(error, try XCTUnwrap(golden["budget_abs_error"]?.number))
        XCTAssertGreaterThan(error, 0)
    }

    func testWhatOfADetectorWasTimedIsWritten() async throws {
        var report = try await measured(DensePredictor(), repeats: 1)
        for (postProcessing, written) in [(PostProcessing.none, "none"), (.graph, "graph"), (.runner, "runner")] {
            report.postProcessing = postProcessing
            XCTAssertEqual(try self.written(report)["post_processing"], .text(written))
        }
        report.selfTest?.images[0] = ImageError(image: "a", maxAbsError: 1, budgetAbsError: 0.5, isComplete: false)
        XCTAssertEqual(
            try written(report)["golden"],
            try JSON(parsing: #"{"passed": false, "max_abs_error": 1.0, "budget_abs_error": 0.5, "image": "a"}"#)
        )
    }

    func testConditionsAreWritten() async throws {
        let state = """
            {"thermal_status": 0, "battery_temperature_c": null, "battery_percent": 80, "charging": false,
             "battery_saver": false, "screen_on": true, "frequencies_khz": []}
            """
        let expected = """
            {"measured_at": "2025-11-23T08:00:05+00:00", "machine": "arm64", "cpu": "iPhone99,1", "logical_cores": 6,
             "os": "iOS 18.1", "python": null, "governor": null, "load_average_before": 0.5,
             "load_average_after": 1.25, "device": {"manufacturer": "Apple", "model": "iPhone99,1", "soc": null,
             "sdk": 18, "app": "org.dmf.demo 0.1.0", "before": \(state), "after": \(state)}}
            """
        var report = try await measured(DensePredictor(), repeats: 1)
        report.before.loadAverage = 0.5
        report.after.loadAverage = 1.25
        XCTAssertEqual(try written(report)["conditions"], try JSON(parsing: expected))
    }

    func testWhatTheDeviceDoesNotTellIsNull() async throws {
        device.currentState = silentState
        let conditions = try written(await measured(DensePredictor(), repeats: 1))["conditions"]
        let expected = """
            {"thermal_status": null, "battery_temperature_c": null, "battery_percent": null, "charging": null,
             "battery_saver": null, "screen_on": null, "frequencies_khz": []}
            """
        XCTAssertEqual(conditions?["device"]?["before"], try JSON(parsing: expected))
        XCTAssertEqual(conditions?["load_average_before"], .null)
    }

    func testThePlanIsWritten() async throws {
        var report = try await measured(DensePredictor(), repeats: 1)
        report.computePlan = plan
        let expected = """
            {"cpu": 1, "gpu": 0, "neural_engine": 2, "by_op": [
              {"op": "ios17.linear", "module": "head.fc", "cpu": 0, "gpu": 0, "neural_engine": 2},
              {"op": "ios17.softmax", "module": null, "cpu": 1, "gpu": 0, "neural_engine": 0}]}
            """
        XCTAssertEqual(try written(report)["compute_plan"], try JSON(parsing: expected))
    }

    func testAnAnswerThatIsNoNumberIsAFiniteErrorAndAFlag() async throws {
        let json = try written(await measured(notANumber(), repeats: 30))
        XCTAssertEqual(json["golden"]?["max_abs_error"]?.number, .greatestFiniteMagnitude)
        XCTAssertEqual(json["golden"]?["passed"], .bool(false))
        XCTAssertEqual(json["invalid_because"], .list([.text("wrong_answers")]))
    }

    func testAFunctionIsReportedByItsName() async throws {
        var names: [JSON?] = []
        for function in try ModelPackage(contentsOf: Fixtures.sizesFolder).functions {
            let predictor = try DensePredictor()
            let benchmark = try Benchmark(of: function, model: FakeModel { _ in predictor }, on: device) { true }
            let report = try await benchmark.measure(.all, warmup: 0, repeats: 1)
            XCTAssertEqual(report.selfTest?.passed, true)
            names.append(try written(report)["package"])
        }
        XCTAssertEqual(names, [.text("tiny-coreml-sizes-fp16:main"), .text("tiny-coreml-sizes-fp16:size_6")])
    }

    func testWithoutGoldenVectorsThereIsNoVerdict() async throws {
        var report = try await measured(DensePredictor(), repeats: 1)
        report.selfTest = nil
        XCTAssertEqual(try written(report)["golden"], .null)
    }

    func testTheDocumentHoldsTheReports() async throws {
        let report = try await measured(DensePredictor(), repeats: 1)
        let document = try JSON.object(latencyResults([report, report]), source: "results")
        XCTAssertEqual(document.keys.sorted(), ["comparisons", "reports", "schema_version"])
        XCTAssertEqual(document["schema_version"], .int(3))
        XCTAssertEqual(document["comparisons"], .list([]))
        XCTAssertEqual(document["reports"]?.list(of: \.object)?.count, 2)
    }

    /// For the Python tests, which validate it against the schema: good reports, and some as bad as can be.
    func testACompleteDocumentIsWritten() async throws {
        let path = ProcessInfo.processInfo.environment["DMF_REPORT"]
        guard let path else { throw XCTSkip("DMF_REPORT names no file") }
        var good = try await measured(DensePredictor(), repeats: 32)
        good.computePlan = plan
        var mac = good
        mac.device.platform = .macOS
        mac.before.loadAverage = 0.5
        let others = ComputeUnits.allCases.map { units in
            var other = mac
            other.runtime.computeUnits = units
            return other
        }
        device.currentState = silentState
        device.currentState.thermalStatus = 4
        device.currentState.batterySaver = true
        device.currentState.screenOn = false
        let bad = try await measured(notANumber(), repeats: 3, isForeground: false)
        XCTAssertEqual(bad.invalidBecause, Flag.allCases)
        var silent = bad
        silent.selfTest = nil
        let detectors = PostProcessing.allCases.map { postProcessing in
            var detector = good
            detector.postProcessing = postProcessing
            return detector
        }
        let document = try latencyResults([good] + others + detectors + [bad, silent])
        try document.write(to: URL(fileURLWithPath: path))
    }

    private let plan = ComputePlan(
        [
            PlannedOperation(type: "ios17.linear", outputs: ["linear_0_cast_fp16"], preferred: .neuralEngine),
            PlannedOperation(type: "ios17.softmax", outputs: ["probabilities"], preferred: .cpu),
            PlannedOperation(type: "ios17.linear", outputs: ["logits"], preferred: .neuralEngine)
        ],
        modules: [TappedModule(module: "head.fc", tensors: ["linear_0_cast_fp16", "logits"])]
    )

    private func notANumber() throws -> ChangedPredictor {
        ChangedPredictor(try DensePredictor()) { _, _, logits in [.nan] + logits.dropFirst() }
    }

    private func measured(
        _ predictor: any Predictor, repeats: Int, isForeground: Bool = true
    ) async throws -> LatencyReport {
        let timed = ChangedPredictor(predictor) { [device] _, _, logits in
            device.pass(ms: 2.25)
            return logits
        }
        let model = FakeModel { _ in timed }
        let benchmark = try Benchmark(of: Fixtures.openPackage(), model: model, on: device) { isForeground }
        return try await benchmark.measure(.all, warmup: 1, repeats: repeats)
    }

    /// As it is read again from its text.
    private func written(_ report: LatencyReport) throws -> JSON {
        let document = try JSON.object(latencyResults([report]), source: "results")
        return try XCTUnwrap(document["reports"]?[0])
    }
}
