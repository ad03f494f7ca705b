import XCTest

@testable import DMFClassifier

final class SelfTestTests: XCTestCase {
    private var golden: Golden { get throws { try XCTUnwrap(Fixtures.openPackage().golden) } }
    private var manifest: Manifest { get throws { try Fixtures.openPackage().manifest } }

    func testTheLayerItselfPasses() throws {
        let result = try run(DensePredictor())
        XCTAssertTrue(result.passed, "\(result)")
        XCTAssertFalse(result.frozenRouting)
        XCTAssertEqual(result.images.map(\.image), try golden.names)
        XCTAssertEqual(result.images.map(\.budgetAbsError), try golden.budgets)
        XCTAssertTrue((1e-8...1e-4).contains(result.worst.maxAbsError), "\(result)") // float32 sums
    }

    func testEachFunctionIsJudgedByItsOwnGoldenVectors() throws {
        let functions = try ModelPackage(contentsOf: Fixtures.sizesFolder).functions
        let right = try functions.map { try run(DensePredictor(), $0) }
        XCTAssertEqual(right.map(\.passed), [true, true])
        let whole = SelfTestResult(ofFunctions: right)
        XCTAssertTrue(whole.passed)
        XCTAssertEqual(whole.images, right.flatMap(\.images))
        let wrong = ChangedPredictor(try DensePredictor()) { _, _, logits in logits.map { $0 * 1.01 } }
        for results in [[try run(wrong, functions[0]), right[1]], [right[0], try run(wrong, functions[1])]] {
            XCTAssertFalse(SelfTestResult(ofFunctions: results).passed)
        }
        let frozen = SelfTestResult(ofFunctions: [right[0], try run(frozenPredictor(), functions[1])])
        XCTAssertTrue(frozen.frozenRouting)
    }

    /// The graph normalises: the predictor gets the picture, and answers the same.
    func testAnImageInputPassesToo() throws {
        var image = try manifest
        image.input.dtype = .image
        image.input.normalisationInGraph = true
        var kinds: [ModelInput] = []
        let predictor = ChangedPredictor(try DensePredictor()) { _, input, logits in
            kinds.append(input)
            return logits
        }
        XCTAssertTrue(try SelfTest.run(predictor, golden, image).passed)
        XCTAssertEqual(kinds, try golden.images.map(ModelInput.image))
        let mirrored = ChangedPredictor(try DensePredictor()) { _, input, logits in
            guard case .image(let pixels) = input else { return logits }
            let turned = Pixels(width: pixels.width, height: pixels.height, rgb: pixels.rgb.reversed())
            return try DensePredictor().logits(for: .image(turned))
        }
        XCTAssertFalse(try SelfTest.run(mirrored, golden, image).passed)
    }

    func testEveryImageIsJudgedByItsOwnBudget() throws {
        for index in 0..<3 {
            for share in [0.5, 1.5] {
                let off = share * (try golden.budgets[index])
                let predictor = ChangedPredictor(try DensePredictor()) { run, _, logits in
                    var moved = logits
                    if run == index { moved[3] += Float(off) }
                    return moved
                }
                let result = try run(predictor)
                XCTAssertEqual(result.images.map(\.passed), (0..<3).map { share < 1 || $0 != index })
                XCTAssertEqual(result.passed, share < 1)
                XCTAssertEqual(result.worst.image, try golden.names[index])
                XCTAssertEqual(result.worst.maxAbsError, off, accuracy: 1e-4)
            }
        }
    }

    func testAScaledAnswerFails() throws {
        try assertFails { $1.map { $0 * 1.01 } }
    }

    func testAZeroedAnswerFails() throws {
        try assertFails { $1.map { _ in 0 } }
    }

    func testAPermutedAnswerFails() throws {
        try assertFails { $1.reversed() }
    }

    func testAPermutedInputFails() throws {
        try assertFails { input, _ in
            guard case .tensor(let values) = input else { return [] }
            return try DensePredictor().logits(for: .tensor(values.reversed()))
        }
    }

    func testFrozenRoutingFailsAndIsNamed() throws {
        let result = try run(frozenPredictor())
        XCTAssertTrue(result.frozenRouting)
        XCTAssertFalse(result.passed)
        XCTAssertTrue(result.images[0].passed) // it is what the others are routed like
        XCTAssertFalse(result.images[1].passed || result.images[2].passed)
    }

    /// Halfway between the two, within a budget of both: right by its errors, and still frozen.
    func testFrozenRoutingFailsWithinTheBudgetsToo() throws {
        var wide = try golden
        let frozen = try XCTUnwrap(wide.frozenLogits)
        let logits = wide.logits
        wide.budgets = (0..<3).map { index in
            max(1e-3, 0.75 * (zip(logits[index], frozen[index]).map { abs($0 - $1) }.max() ?? 0))
        }
        let halfway = ChangedPredictor(try DensePredictor()) { run, _, _ in
            zip(logits[run], frozen[run]).map { Float(($0 + $1) / 2) }
        }
        let result = try SelfTest.run(halfway, wide, manifest)
        XCTAssertTrue(result.images.allSatisfy(\.passed))
        XCTAssertTrue(result.frozenRouting)
        XCTAssertFalse(result.passed)
        XCTAssertTrue(try SelfTest.run(DensePredictor(), wide, manifest).passed)
    }

    func testWhereFrozenRoutingWouldAnswerTheSameItIsNotSuspected() throws {
        for frozenLogits in [try golden.logits, nil] {
            var other = try golden
            other.answers = .logits(other.logits, frozen: frozenLogits)
            let result = try SelfTest.run(DensePredictor(), other, manifest)
            XCTAssertFalse(result.frozenRouting)
            XCTAssertTrue(result.passed)
        }
    }

    func testWhatIsNoNumberFailsAsTheWorst() throws {
        for value in [Float.nan, .infinity, -.infinity] {
            let result = try run(ChangedPredictor(try DensePredictor()) { run, _, logits in
                var changed = logits
                if run == 1 { changed[4] = value } else { changed[0] += 10 }
                return changed
            })
            XCTAssertFalse(result.passed)
            XCTAssertEqual(result.worst.image, "photograph: café")
            XCTAssertEqual(result.worst.maxAbsError, .infinity)
        }
    }

    func testAnotherNumberOfLogitsIsAnError() throws {
        let predictor = ChangedPredictor(try DensePredictor()) { _, _, logits in logits.dropLast() }
        assertPredictorError("the artifact's logits are [1, 4], must be [1, 5]; export the package again") {
            try run(predictor)
        }
    }

    func testTheWorstImageOfExactAnswersHasNoError() {
        let exact = SelfTestResult(
            images: [
                ImageError(image: "a", maxAbsError: 0, budgetAbsError: 0),
                ImageError(image: "b", maxAbsError: 1e-9, budgetAbsError: 1e-3)
            ],
            frozenRouting: false
        )
        XCTAssertTrue(exact.passed)
        XCTAssertEqual(exact.worst.image, "b")
        var spent = exact
        spent.images.append(ImageError(image: "c", maxAbsError: 1e-12, budgetAbsError: 0))
        XCTAssertFalse(spent.passed)
        XCTAssertEqual(spent.worst.image, "c")
    }

    private func run(_ predictor: any Predictor) throws -> SelfTestResult {
        try SelfTest.run(predictor, golden, manifest)
    }

    private func run(_ predictor: any Predictor, _ function: ModelPackage) throws -> SelfTestResult {
        try SelfTest.run(predictor, XCTUnwrap(function.golden), function.manifest)
    }

    private func assertFails(
        line: UInt = #line, _ change: @escaping (ModelInput, [Float]) throws -> [Float]
    ) throws {
        let result = try run(ChangedPredictor(try DensePredictor()) { _, input, logits in
            try change(input, logits)
        })
        XCTAssertFalse(result.passed, line: line)
        XCTAssertFalse(result.frozenRouting, line: line)
        XCTAssertFalse(result.images.contains(where: \.passed), line: line)
    }
}
