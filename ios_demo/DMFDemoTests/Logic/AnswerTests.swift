import DMFClassifier
import XCTest

@testable import DMFDemo

final class AnswerTests: XCTestCase {
    private let labels = ["cat", "dog", "tree"]

    func testTheSurestClassesAreListed() {
        let answer = answered(.classes(topK([0.125, 0.5, 0.375], 3)))
        let rows = [row(0, "dog", "50.0 %"), row(1, "tree", "37.5 %"), row(2, "cat", "12.5 %")]
        XCTAssertEqual(answer.rows(labels), rows)
        XCTAssertEqual(answer.rows(nil).map(\.name), ["class 1", "class 2", "class 0"])
        XCTAssertEqual(answer.marks(labels), [], "a class is nowhere in particular")
        XCTAssertEqual(answered(.classes(topK((0..<9).map(Double.init), 9))).rows(nil).count, 5)
    }

    func testObjectsAreListedAndDrawn() {
        let box = Box(x1: 1, y1: 2, x2: 3, y2: 4)
        let objects = (0..<30).map { DetectedObject(box: box, score: 1 - Double($0) / 40, label: $0 % 3) }
        let answer = answered(.objects(objects))
        XCTAssertEqual(answer.rows(labels).map(\.name), ["cat", "dog", "tree", "cat", "dog"])
        XCTAssertEqual(answer.rows(labels).map(\.share), ["100.0 %", "97.5 %", "95.0 %", "92.5 %", "90.0 %"])
        XCTAssertEqual(Set(answer.rows(labels).map(\.id)).count, 5, "two of a class are two rows")
        XCTAssertEqual(answer.marks(labels).count, 20)
        XCTAssertEqual(answer.marks(labels)[1], Mark(box: box, caption: "dog 97.5 %"))
        XCTAssertEqual(answer.marks(nil)[2], Mark(box: box, caption: "class 2 95.0 %"))
        XCTAssertEqual(answered(.objects([])).rows(labels), [])
    }

    private func answered(_ findings: Findings) -> Answer {
        Answer(findings: findings, width: 8, height: 8, preprocessingMs: 0, inferenceMs: 0, postProcessingMs: 0)
    }

    private func row(_ id: Int, _ name: String, _ share: String) -> AnswerRow {
        AnswerRow(id: id, name: name, share: share)
    }
}
