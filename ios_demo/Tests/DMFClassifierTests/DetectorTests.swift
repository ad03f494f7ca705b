import XCTest

@testable import DMFClassifier

/// What a detector answers, its self-test and its benchmark.
final class DetectorTests: FolderTestCase {
    private let device = FakeDevice()

    private func open() throws -> ModelPackage {
        try ModelPackage(contentsOf: Fixtures.detectorFolder)
    }

    func testTheDetectorItselfPasses() throws {
        let result = try run(DenseDetector())
        XCTAssertTrue(result.passed, "\(result)")
        XCTAssertFalse(result.frozenRouting)
        XCTAssertEqual(result.images.map(\.image), ["noise 0", "photograph: café", "noise 2"])
        XCTAssertEqual(result.images.map(\.budgetAbsError), [1e-3, 2e-3, 4e-3])
        XCTAssertTrue((1e-9...1e-5).contains(result.worst.maxAbsError), "\(result)") // float32 sums
    }

    func testOneThatSuppressesItselfPasses() throws {
        let manifest = try detectorManifest(suppressInGraph)
        XCTAssertTrue(try run(SuppressingDetector(), manifest).passed)
        let mirrored = ChangedPredictor.outputs(of: try SuppressingDetector()) { _, _, outputs in
            var mirrored = outputs
            mirrored["coordinates"]?.values = try XCTUnwrap(outputs["coordinates"]).values.map { 1 - $0 }
            return mirrored
        }
        XCTAssertFalse(try run(mirrored, manifest).passed)
    }

    /// By half its budget it passes, by one and a half it does not.
    func testAScoreMayDifferByItsImagesBudget() throws {
        for index in 0..<3 {
            for share in [0.5, 1.5] {
                let off = Float(share * [1e-3, 2e-3, 4e-3][index])
                let result = try run(changedDetector { run, scores, _ in
                    guard run == index else { return }
                    let best = try XCTUnwrap(scores.indices.max { scores[$0] < scores[$1] })
                    scores[best] += off
                })
                XCTAssertEqual(result.images.map(\.passed), (0..<3).map { share < 1 || $0 != index })
                XCTAssertEqual(result.worst.maxAbsError, Double(off), accuracy: 1e-5)
                XCTAssertEqual(result.images.map(\.isComplete), [true, true, true])
            }
        }
    }

    func testABoxThatIsMovedFails() throws {
        for (px, passes) in [(Float(0.01), true), (1, false)] {
            let result = try run(changedDetector { run, _, boxes in
                if run == 2 { boxes = boxes.map { $0 + px } }
            })
            XCTAssertEqual(result.images.map(\.passed), [true, true, passes])
            if !passes { XCTAssertEqual(result.worst, error("noise 2", 1, of: 4e-3)) }
        }
    }

    func testAnObjectThatIsMissingFails() throws {
        let result = try run(changedDetector { run, scores, _ in
            guard run == 0 else { return }
            let best = try XCTUnwrap(scores.indices.max { scores[$0] < scores[$1] })
            scores[best] = 0
        })
        XCTAssertEqual(result.images.map(\.passed), [false, true, true])
        XCTAssertEqual(result.worst, error("noise 0", 1, of: 1e-3))
    }

    func testAnObjectThatIsNotExpectedFails() throws {
        let result = try run(changedDetector { run, scores, boxes in
            guard run == 2 else { return }
            boxes.replaceSubrange(0..<4, with: [0, 7, 1, 8])
            scores.replaceSubrange(0..<5, with: [0, 0, 0, 0, 0.9])
        })
        XCTAssertEqual(result.images.map(\.passed), [true, true, false])
        XCTAssertEqual(result.worst, error("noise 2", 1, of: 4e-3))
    }

    /// Image 1 has two of them: one that the network finds, and one that it does not.
    func testWhatIsUndecidedMayComeAndGo() throws {
        guard case .objects(let objects, _)? = try open().golden?.answers else { return XCTFail("no objects") }
        let (last, absent) = (objects[1][3].object, objects[1][4].object)
        func withoutTheLast(_ scores: [Float]) -> [Float] { // nor what is less sure, and would take its place
            scores.map { Double($0) < last.score + 1e-5 ? 0 : $0 }
        }
        let gone = try run(changedDetector { run, scores, _ in
            if run == 1 { scores = withoutTheLast(scores) }
        })
        XCTAssertTrue(gone.passed, "\(gone)")
        func adding(_ label: Int) throws -> SelfTestResult {
            try run(changedDetector { run, scores, boxes in
                guard run == 1 else { return }
                scores = withoutTheLast(scores)
                let free = try XCTUnwrap((0..<6).first { scores[$0 * 5..<$0 * 5 + 5].allSatisfy { $0 <= 0.25 } })
                boxes.replaceSubrange(free * 4..<free * 4 + 4, with: [0, 6, 1, 7])
                scores[free * 5 + label] = Float(absent.score) + 1e-3
            })
        }
        XCTAssertTrue(try adding(absent.label).passed)
        XCTAssertFalse(try adding(absent.label + 1).passed)
    }

    func testWhatIsNoNumberFailsAsTheWorst() throws {
        for value in [Float.nan, .infinity, -.infinity] {
            let result = try run(changedDetector { run, scores, boxes in
                if run == 1 { boxes[7] = value } else { scores[0] = 0.9 }
            })
            XCTAssertFalse(result.passed)
            XCTAssertEqual(result.worst, error("photograph: café", .infinity, of: 2e-3))
        }
    }

    func testABudgetOfMoreThanOneForgivesNoObject() {
        XCTAssertFalse(ImageError(image: "a", maxAbsError: 1, budgetAbsError: 2, isComplete: false).passed)
        XCTAssertTrue(ImageError(image: "a", maxAbsError: 1, budgetAbsError: 2).passed)
    }

    func testOutputsThatDoNotFitAreRefused() throws {
        let manifest = try open().manifest
        let outputs = try DenseDetector().outputs(for: .tensor([Float](repeating: 0, count: 192)))
        assertPredictorError("the artifact has no output \"boxes\"; export the package again") {
            try manifest.findings(in: outputs.filter { $0.key == "scores" })
        }
        var other = outputs
        other["scores"]?.shape = [1, 5, 6]
        assertPredictorError("the artifact's scores are [1, 5, 6], must be [1, 6, 5]; export the package again") {
            try manifest.findings(in: other)
        }
        other = outputs
        other["scores"]?.values[3] = .nan
        assertPredictorError("the network's answer is no number; use other compute units") {
            try manifest.findings(in: other)
        }
        let suppressed = try detectorManifest(suppressInGraph)
        assertPredictorError(
            "the artifact's outputs are of [2, 1] objects, must be of as many; export the package again"
        ) {
            try suppressed.findings(in: [
                "confidence": Tensor(shape: [2, 5], values: Array(repeating: 0.5, count: 10)),
                "coordinates": Tensor(shape: [1, 4], values: Array(repeating: 0.5, count: 4))
            ])
        }
        let nothing = try suppressed.findings(in: [
            "confidence": Tensor(shape: [0, 5], values: []), "coordinates": Tensor(shape: [0, 4], values: [])
        ])
        XCTAssertEqual(nothing, .objects([]))
    }

    /// The network takes 2 ms. Choosing the objects must be within the time or not: it is, if wrong outputs stop it.
    func testChoosingTheObjectsIsTimedIfAsked() async throws {
        for (asked, expected) in [(false, PostProcessing.none), (true, .runner)] {
            let report = try await measure(DenseDetector(), try open(), postProcessing: asked)
            XCTAssertEqual(report.postProcessing, expected)
            XCTAssertEqual(report.samplesMs, [2, 2])
            XCTAssertEqual(report.selfTest?.passed, true)
            let failing = ChangedPredictor.outputs(of: try DenseDetector()) { run, _, outputs in
                run < 3 ? outputs : [:]
            }
            let outcome = try? await measure(failing, try open(), postProcessing: asked)
            XCTAssertEqual(outcome == nil, asked)
        }
    }

    func testAGraphThatSuppressesIsSaidToAndAClassifierIsNot() async throws {
        for asked in [false, true] {
            let graph = try ModelPackage(contentsOf: copyPackage(Fixtures.detectorFolder) { try suppressInGraph(&$1) })
            let report = try await measure(SuppressingDetector(), graph, postProcessing: asked)
            XCTAssertEqual(report.postProcessing, .graph)
            XCTAssertEqual(report.selfTest?.passed, true)
            try FileManager.default.removeItem(at: graph.folder)
            let classifier = try await measure(DensePredictor(), try Fixtures.openPackage(), postProcessing: asked)
            XCTAssertNil(classifier.postProcessing)
        }
    }

    private func measure(
        _ predictor: any Predictor, _ package: ModelPackage, postProcessing: Bool
    ) async throws -> LatencyReport {
        let timed = ChangedPredictor.outputs(of: predictor) { [device] _, _, outputs in
            device.pass(ms: 2)
            return outputs
        }
        let benchmark = try Benchmark(
            of: package, model: FakeModel { _ in timed }, on: device, postProcessing: postProcessing
        ) { true }
        return try await benchmark.measure(.all, warmup: 1, repeats: 2)
    }

    private func run(_ predictor: any Predictor, _ manifest: Manifest? = nil) throws -> SelfTestResult {
        let package = try open()
        return try SelfTest.run(predictor, XCTUnwrap(package.golden), manifest ?? package.manifest)
    }

    /// The tiny detector whose scores (6, 5) and boxes (6, 4) of the run from 0 are changed.
    private func changedDetector(
        _ change: @escaping (Int, inout [Float], inout [Float]) throws -> Void
    ) throws -> ChangedPredictor {
        ChangedPredictor.outputs(of: try DenseDetector()) { run, _, outputs in
            var (scores, boxes) = (try XCTUnwrap(outputs["scores"]), try XCTUnwrap(outputs["boxes"]))
            try change(run, &scores.values, &boxes.values)
            return ["scores": scores, "boxes": boxes]
        }
    }

    private func error(_ image: String, _ maxAbsError: Double, of budget: Double) -> ImageError {
        ImageError(image: image, maxAbsError: maxAbsError, budgetAbsError: budget, isComplete: false)
    }
}
