import DMFClassifier
import XCTest

@testable import DMFDemo

final class ClassifierTests: XCTestCase {
    private func selection(_ units: ComputeUnits = .all) -> Selection {
        Selection(folder: Fixtures.packageFolder, computeUnits: units)
    }

    func testTheFirstOpeningTestsAndLaterOnesRemember() async throws {
        try await withFolder { folder in
            let verdicts = Verdicts(file: folder.appendingPathComponent("a/verdicts.json"), version: "1")
            let right = Classifier(verdicts: verdicts) { FakeModel(package: $0) }
            let opened = try await right.open(selection())
            XCTAssertEqual(opened.verdict?.passed, true)
            let wrong = Classifier(verdicts: verdicts) { FakeModel(package: $0, offset: 1) }
            let remembered = try await wrong.open(selection())
            XCTAssertEqual(remembered.verdict, opened.verdict)
            let other = try await wrong.open(selection(.cpuOnly))
            XCTAssertEqual(other.verdict?.passed, false)
            XCTAssertEqual(try XCTUnwrap(other.verdict?.maxAbsError), 1, accuracy: 1e-6)
            let update = Verdicts(file: verdicts.file, version: "2")
            XCTAssertNil(update.find(opened.package.artifactSHA256, .all))
        }
    }

    func testTheFirstOpeningTestsEveryFunction() async throws {
        try await withFolder { folder in
            for wrong in ["main", "size_6", nil] {
                let verdicts = Verdicts(file: folder.appendingPathComponent("\(wrong ?? "none")"), version: "1")
                let classifier = Classifier(verdicts: verdicts) { function in
                    FakeModel(package: function, offset: function.manifest.input.function == wrong ? 1 : 0)
                }
                let opened = try await classifier.open(
                    Selection(folder: Fixtures.sizesFolder, function: "size_6", computeUnits: .all)
                )
                XCTAssertEqual(opened.package.manifest.input.function, "size_6")
                let verdict = try XCTUnwrap(opened.verdict)
                XCTAssertEqual(verdict.passed, wrong == nil)
                switch wrong {
                case "main": XCTAssertTrue(verdict.image.hasSuffix(" at 8 × 8 px"), verdict.image)
                case "size_6": XCTAssertTrue(verdict.image.hasSuffix(" at 6 × 6 px"), verdict.image)
                default: break
                }
                let other = try await classifier.open(Selection(folder: Fixtures.sizesFolder, computeUnits: .all))
                XCTAssertEqual(other.package.manifest.input.function, "main")
                XCTAssertEqual(other.verdict, verdict)
            }
        }
    }

    func testTheChosenFunctionStaysOpen() async throws {
        try await withFolder { folder in
            let classifier = Classifier(verdicts: Verdicts(file: folder.appendingPathComponent("v"), version: "1")) {
                FakeModel(package: $0)
            }
            for (function, side) in [("main", 8), ("size_6", 6)] {
                let opened = try await classifier.open(
                    Selection(folder: Fixtures.sizesFolder, function: function, computeUnits: .all)
                )
                let golden = try XCTUnwrap(opened.package.golden)
                XCTAssertEqual(golden.images[0].width, side)
                let grey = Pixels(width: 16, height: 16, rgb: Array(repeating: 128, count: 16 * 16 * 3))
                let answer = try await classifier.classify(grey)
                XCTAssertEqual(answer?.predictions, topK(softmax(golden.logits[0].map(Float.init)), 5))
            }
        }
    }

    func testAPictureIsClassifiedUntilItIsClosed() async throws {
        try await withFolder { folder in
            let classifier = Classifier(verdicts: Verdicts(file: folder.appendingPathComponent("v"), version: "1")) {
                FakeModel(package: $0)
            }
            let package = try await classifier.open(selection()).package
            let golden = try XCTUnwrap(package.golden)
            let side = package.manifest.input.resize
            let grey = Pixels(width: side, height: side, rgb: Array(repeating: 128, count: side * side * 3))
            let found = try await classifier.classify(grey)
            let answer = try XCTUnwrap(found)
            let best = try XCTUnwrap(golden.logits[0].indices.max { golden.logits[0][$0] < golden.logits[0][$1] })
            XCTAssertEqual(answer.predictions.first?.classIndex, best)
            await classifier.close()
            let nothing = try await classifier.classify(grey)
            XCTAssertNil(nothing)
        }
    }

    func testWhatOpensMeanwhileTakesItsPlace() async throws {
        try await withFolder { folder in
            let verdicts = Verdicts(file: folder.appendingPathComponent("v"), version: "1")
            let closing = Closing()
            let classifier = Classifier(verdicts: verdicts) { package in
                await closing.close()
                return FakeModel(package: package)
            }
            await closing.set(classifier)
            do {
                _ = try await classifier.open(selection())
                XCTFail("opened")
            } catch {
                XCTAssertTrue(error is CancellationError)
            }
        }
    }
}

/// Closes a classifier while it compiles.
private actor Closing {
    private var classifier: Classifier?

    func set(_ classifier: Classifier) {
        self.classifier = classifier
    }

    func close() async {
        await classifier?.close()
    }
}
