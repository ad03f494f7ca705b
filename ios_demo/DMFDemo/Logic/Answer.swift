import DMFClassifier
import Foundation

/// What the network says of a picture of `width` x `height` px, in which the boxes of objects are, and how long it
/// took: from the picture to the input, from there to the outputs, and from those to the findings.
struct Answer: Equatable, Sendable {
    let findings: Findings
    let width: Int
    let height: Int
    let preprocessingMs: Double
    let inferenceMs: Double
    let postProcessingMs: Double
}

/// A class, or an object, as a row of a list: `share` is how probable, or how sure, it is.
struct AnswerRow: Identifiable, Equatable {
    let id: Int
    let name: String
    let share: String
}

/// What is drawn of an object over the picture it was found in.
struct Mark: Equatable, Sendable {
    let box: Box
    let caption: String
}

extension Answer {
    private static let listedCount = 5
    private static let drawnCount = 20

    /// The surest few.
    func rows(_ labels: [String]?) -> [AnswerRow] {
        let named = switch findings {
        case .classes(let classes): classes.prefix(Answer.listedCount).map { ($0.classIndex, $0.probability) }
        case .objects(let objects): objects.prefix(Answer.listedCount).map { ($0.label, $0.score) }
        }
        return named.enumerated().map { index, named in
            AnswerRow(id: index, name: name(of: named.0, labels), share: percent(named.1))
        }
    }

    /// Those of the surest objects; more would hide the picture. A classifier has none.
    func marks(_ labels: [String]?) -> [Mark] {
        guard case .objects(let objects) = findings else { return [] }
        return objects.prefix(Answer.drawnCount).map { object in
            Mark(box: object.box, caption: "\(name(of: object.label, labels)) \(percent(object.score))")
        }
    }
}

private func name(of classIndex: Int, _ labels: [String]?) -> String {
    labels?[classIndex] ?? "class \(classIndex)"
}

private func percent(_ share: Double) -> String {
    String(format: "%.1f %%", share * 100)
}
