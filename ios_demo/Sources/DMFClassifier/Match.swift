/// An object of a golden image. A tiny error makes one that is not decided appear or vanish: it may be missing.
public struct ExpectedObject: Equatable, Sendable {
    public var object: DetectedObject
    public var isDecided: Bool

    public init(_ object: DetectedObject, isDecided: Bool) {
        self.object = object
        self.isDecided = isDecided
    }
}

/// Which objects that were found are expected ones, and how near; as `runtime/detections.py` matches them.
struct Match: Equatable {
    /// In px, by which boxes are grown on every side before they are compared: some have no area, clipped to an edge.
    private static let slack = 1.0

    let found: Int
    /// Decided ones that were not found.
    let missed: Int
    /// Of each that matches one: their overlap, and by how much their scores differ.
    let ious: [Double]
    let scoreErrors: [Double]

    /// Each object of `found`, the surest first, is the expected one of its class whose score is nearest, of those that
    /// it overlaps by at least `iou`, both grown, and that no other one is; of equally near ones the first.
    init(_ found: [DetectedObject], _ expected: [ExpectedObject], iou: Double) {
        var free = Array(expected.indices)
        var pairs: [(iou: Double, scoreError: Double)] = []
        let boxes = expected.map { $0.object.box.grown(by: Match.slack) }
        for object in found {
            let box = object.box.grown(by: Match.slack)
            var best: (place: Int, iou: Double, scoreError: Double)?
            for (place, index) in free.enumerated() where expected[index].object.label == object.label {
                let overlap = box.overlap(boxes[index]), error = abs(expected[index].object.score - object.score)
                if overlap >= iou, error < best?.scoreError ?? .infinity { best = (place, overlap, error) }
            }
            guard let best else { continue }
            free.remove(at: best.place)
            pairs.append((best.iou, best.scoreError))
        }
        self.found = found.count
        missed = free.filter { expected[$0].isDecided }.count
        ious = pairs.map(\.iou)
        scoreErrors = pairs.map(\.scoreError)
    }

    /// Whether every decided object was found, and every one that was found is expected.
    var isComplete: Bool { missed == 0 && found == ious.count }

    /// The largest; 1 where only one of both has an object.
    var scoreError: Double { isComplete ? scoreErrors.max() ?? 0 : 1 }
}
