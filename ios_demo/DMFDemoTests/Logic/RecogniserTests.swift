import DMFClassifier
import XCTest

@testable import DMFDemo

final class RecogniserTests: XCTestCase {
    private func selection(_ units: ComputeUnits = .all) -> Selection {
        Selection(folder: Fixtures.packageFolder, computeUnits: units)
    }

    func testTheFirstOpeningTestsAndLaterOnesRemember() async throws {
        try await withFolder { folder in
            let verdicts = Verdicts(file: folder.appendingPathComponent("a/verdicts.json"), version: "1")
            let right = Recogniser(verdicts: verdicts) { FakeModel(package: $0) }
            let opened = try await right.open(selection())
            XCTAssertEqual(opened.verdict?.passed, true)
            let wrong = Recogniser(verdicts: verdicts) { FakeModel(package: $0, offset: 1) }
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
                let recogniser = Recogniser(verdicts: verdicts) { function in
                    FakeModel(package: function, offset: function.manifest.input.function == wrong ? 1 : 0)
                }
                let opened = try await recogniser.open(
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
                let other = try await recogniser.open(Selection(folder: Fixtures.sizesFolder, computeUnits: .all))
                XCTAssertEqual(other.package.manifest.input.function, "main")
                XCTAssertEqual(other.verdict, verdict)
            }
        }
    }

    func testTheChosenFunctionStaysOpen() async throws {
        try await withFolder { folder in
            let recogniser = Recogniser(verdicts: Verdicts(file: folder.appendingPathComponent("v"), version: "1")) {
                FakeModel(package: $0)
            }
            for (function, side) in [("main", 8), ("size_6", 6)] {
                let opened = try await recogniser.open(
                    Selection(folder: Fixtures.sizesFolder, function: function, computeUnits: .all)
                )
                let golden = try XCTUnwrap(opened.package.golden)
                XCTAssertEqual(golden.images[0].width, side)
                let grey = Pixels(width: 16, height: 16, rgb: Array(repeating: 128, count: 16 * 16 * 3))
                let answer = try await recogniser.recognise(grey)
                XCTAssertEqual(answer?.findings, .classes(topK(softmax(golden.logits[0].map(Float.init)), 5)))
            }
        }
    }

    func testAPictureIsRecognisedUntilItIsClosed() async throws {
        try await withFolder { folder in
            let recogniser = Recogniser(verdicts: Verdicts(file: folder.appendingPathComponent("v"), version: "1")) {
                FakeModel(package: $0)
            }
            let package = try await recogniser.open(selection()).package
            let golden = try XCTUnwrap(package.golden)
            let side = 10
            let grey = Pixels(width: side, height: side, rgb: Array(repeating: 128, count: side * side * 3))
            let found = try await recogniser.recognise(grey)
            let answer = try XCTUnwrap(found)
            let best = try XCTUnwrap(golden.logits[0].indices.max { golden.logits[0][$0] < golden.logits[0][$1] })
            guard case .classes(let classes) = answer.findings else { return XCTFail("no classes") }
            XCTAssertEqual(classes.first?.classIndex, best)
            await recogniser.close()
            let nothing = try await recogniser.recognise(grey)
            XCTAssertNil(nothing)
        }
    }

    /// 16 x 32 px become 4 x 8 of the 8 x 8: boxes are four times as large in the picture, and end where it does.
    func testObjectsAreFoundWhereTheyAreInThePicture() async throws {
        try await withFolder { folder in
            let recogniser = Recogniser(verdicts: Verdicts(file: folder.appendingPathComponent("v"), version: "1")) {
                FakeModel(package: $0)
            }
            let opened = try await recogniser.open(Selection(folder: Fixtures.detectorFolder, computeUnits: .all))
            XCTAssertEqual(opened.verdict?.passed, true)
            guard case .objects(let expected, _)? = opened.package.golden?.answers else { return XCTFail("no objects") }
            let grey = Pixels(width: 16, height: 32, rgb: Array(repeating: 128, count: 16 * 32 * 3))
            let answer = try await recogniser.recognise(grey)
            guard case .objects(let objects)? = answer?.findings else { return XCTFail("no objects") }
            XCTAssertEqual(objects.map(\.label), expected[0].map(\.object.label))
            XCTAssertEqual(objects.count, 4)
            for (object, expected) in zip(objects, expected[0].map(\.object.box)) {
                XCTAssertEqual(object.box.x1, min(4 * expected.x1, 16), accuracy: 1e-5)
                XCTAssertEqual(object.box.y1, min(max(4 * expected.y1, 0), 32), accuracy: 1e-5)
                XCTAssertEqual(object.box.x2, min(4 * expected.x2, 16), accuracy: 1e-5)
                XCTAssertEqual(object.box.y2, min(4 * expected.y2, 32), accuracy: 1e-5)
            }
            XCTAssertEqual(answer?.marks(opened.package.labels).count, 4)
            let wrong = Recogniser(verdicts: Verdicts(file: folder.appendingPathComponent("w"), version: "1")) {
                FakeModel(package: $0, offset: 0.01)
            }
            let judged = try await wrong.open(Selection(folder: Fixtures.detectorFolder, computeUnits: .all))
            XCTAssertEqual(judged.verdict?.passed, false)
        }
    }

    func testWhatOpensMeanwhileTakesItsPlace() async throws {
        try await withFolder { folder in
            let verdicts = Verdicts(file: folder.appendingPathComponent("v"), version: "1")
            let closing = Closing()
            let recogniser = Recogniser(verdicts: verdicts) { package in
                await closing.close()
                return FakeModel(package: package)
            }
            await closing.set(recogniser)
            do {
                _ = try await recogniser.open(selection())
                XCTFail("opened")
            } catch {
                XCTAssertTrue(error is CancellationError)
            }
        }
    }
}

/// Closes a recogniser while it compiles.
private actor Closing {
    private var recogniser: Recogniser?

    func set(_ recogniser: Recogniser) {
        self.recogniser = recogniser
    }

    func close() async {
        await recogniser?.close()
    }
}
