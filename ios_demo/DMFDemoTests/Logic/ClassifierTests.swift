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
