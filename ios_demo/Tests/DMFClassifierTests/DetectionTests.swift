import XCTest

@testable import DMFClassifier

/// Outputs become objects, and objects match expected ones, as Python says in detections.json.
final class DetectionTests: XCTestCase {
    func testEveryCaseOfPythonIsRead() throws {
        var read: [Form: Int] = [:]
        var others = 0
        for json in try cases("read") {
            guard let detection = try? Detection(json.fields("detection")) else {
                others += 1
                continue
            }
            let found = try objects(json, detection)
            XCTAssertEqual(found, try detected(json.fields("objects")))
            read[detection.form, default: 0] += 1
        }
        XCTAssertEqual(read, [.dense: 5, .coremlNMS: 2])
        XCTAssertEqual(others, 3, "the forms of other devices are refused")
    }

    func testOtherSettingsAreNoticed() throws {
        let crowded = try cases("read")[1]
        let detection = try Detection(crowded.fields("detection"))
        let expected = try detected(crowded.fields("objects"))
        let changes: [(String, (inout Detection) -> Void)] = [
            ("threshold", { $0.scoreThreshold = 0.99 }), ("overlap", { $0.nmsIoU = 0.1 }),
            ("no suppression", { $0.nmsIoU = 1 }), ("fewer", { $0.maxDetections = 3 }),
            ("fewer candidates", { $0.candidates = 5 })
        ]
        for (name, change) in changes {
            var other = detection
            change(&other)
            XCTAssertNotEqual(try objects(crowded, other), expected, name)
        }
        let areOfOtherClasses = expected.contains { one in
            expected.contains { $0.label != one.label && $0.box.overlap(one.box) > detection.nmsIoU }
        }
        XCTAssertTrue(areOfOtherClasses, "no class hides another one's objects")
        var fewer = detection
        fewer.maxDetections = 3
        XCTAssertEqual(try objects(crowded, fewer), Array(expected.prefix(3)))
    }

    func testOverlapsAreExact() {
        let box = Box(x1: 0, y1: 0, x2: 4, y2: 2)
        XCTAssertEqual(box.overlap(box), 1)
        XCTAssertEqual(box.overlap(Box(x1: 2, y1: 0, x2: 6, y2: 2)), 1.0 / 3)
        XCTAssertEqual(box.overlap(Box(x1: 2, y1: 1, x2: 4, y2: 3)), 2.0 / 10)
        XCTAssertEqual(box.overlap(Box(x1: 4, y1: 0, x2: 8, y2: 2)), 0)
        let empty = Box(x1: 1, y1: 1, x2: 1, y2: 1)
        XCTAssertEqual(empty.overlap(empty), 0)
    }

    func testEveryMatchIsPythons() throws {
        var verdicts: [Bool] = []
        for json in try cases("match") {
            let expected = try json.fields("expected")
            let decided = try expected.field("decided", "flags") { $0.list(of: \.bool) }
            let objects = zip(try detected(expected), decided).map { ExpectedObject($0, isDecided: $1) }
            let match = Match(try detected(json.fields("found")), objects, iou: try json.number("iou"))
            XCTAssertEqual(match.missed, try json.int("missed"))
            XCTAssertEqual(match.ious, try json.numbers("ious", "numbers") { _ in true })
            XCTAssertEqual(match.scoreError, try json.number("score_error"))
            XCTAssertEqual(match.isComplete, try json.flag("is_complete"))
            verdicts.append(match.isComplete)
        }
        XCTAssertEqual(verdicts, [true, true, false, false, true, false, false, true])
    }

    /// The one whose score is nearest, of two that are as near the first; of what overlaps nothing enough, none.
    func testAnObjectMatchesTheNearestOnce() {
        let box = Box(x1: 0, y1: 0, x2: 4, y2: 4)
        func object(_ score: Double, _ box: Box, label: Int = 0) -> DetectedObject {
            DetectedObject(box: box, score: score, label: label)
        }
        let near = Box(x1: 0, y1: 0, x2: 4, y2: 2.5) // with 1 px around both, 4.5 of 6 rows
        let objects = [object(0.25, near), object(0.5, box), object(0.75, box)]
        let expected = objects.map { ExpectedObject($0, isDecided: true) }
        let match = Match([object(0.5, box), object(0.5, box), object(0.5, box)], expected, iou: 0.75)
        XCTAssertEqual(match.ious, [1, 0.75, 1])
        XCTAssertEqual(match.scoreErrors, [0, 0.25, 0.25])
        XCTAssertTrue(match.isComplete)
        let apart = Match([object(0.5, near)], [ExpectedObject(object(0.5, box), isDecided: true)], iou: 0.76)
        XCTAssertEqual([apart.found, apart.missed, apart.ious.count], [1, 1, 0])
        XCTAssertEqual(apart.scoreError, 1)
    }

    /// At an edge a box may have none.
    func testABoxWithoutAnAreaMatchesItself() {
        let line = DetectedObject(box: Box(x1: 0, y1: 8, x2: 4, y2: 8), score: 0.5, label: 0)
        let match = Match([line], [ExpectedObject(line, isDecided: true)], iou: 0.9)
        XCTAssertEqual(match.ious, [1])
        var elsewhere = line
        elsewhere.box.y2 = 10
        elsewhere.box.y1 = 10
        XCTAssertEqual(Match([elsewhere], [ExpectedObject(line, isDecided: true)], iou: 0.9).missed, 1)
    }

    private func cases(_ name: String) throws -> [JSONFields] {
        try JSONFields(Fixtures.detections(), source: "detections.json").listOfFields(name)
    }

    /// What `detection` makes of the outputs of a case.
    private func objects(_ json: JSONFields, _ detection: Detection) throws -> [DetectedObject] {
        let tensors = try detection.form.outputs.map { name in
            let output = try json.fields("outputs").fields(name)
            let values = try output.numbers("values", "numbers") { _ in true }
            return Tensor(shape: try output.ints("shape", "sides") { _ in true }, values: values.map(Float.init))
        }
        let size = try json.ints("size", "height and width") { $0.count == 2 }
        return detection.objects(in: tensors, width: size[1], height: size[0])
    }

    private func detected(_ json: JSONFields) throws -> [DetectedObject] {
        let boxes = try json.field("boxes", "boxes") { $0.list { $0.list(of: \.number) } }
        let scores = try json.numbers("scores", "numbers") { $0.count == boxes.count }
        let labels = try json.ints("labels", "integers") { $0.count == boxes.count }
        return boxes.indices.map { index in
            let box = boxes[index]
            return DetectedObject(
                box: Box(x1: box[0], y1: box[1], x2: box[2], y2: box[3]), score: scores[index], label: labels[index]
            )
        }
    }
}
