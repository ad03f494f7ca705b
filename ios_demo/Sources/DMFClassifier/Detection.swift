/// What a detector's outputs are; the raw value is its name in manifests.
public enum Form: String, CaseIterable, Sendable {
    /// `scores` (1, A, K), 0..1, and `boxes` (1, A, 4) of every anchor, as x1, y1, x2, y2 in px of the input.
    case dense
    /// `confidence` (N, K), whose largest is the score and the label, and `coordinates` (N, 4), the centre x, y, width
    /// and height as shares of the input's.
    case coremlNMS = "coreml_nms"

    var outputs: [String] {
        switch self {
        case .dense: ["scores", "boxes"]
        case .coremlNMS: ["confidence", "coordinates"]
        }
    }
}

/// How a detector's outputs become the objects in a picture.
///
/// Scores are above `scoreThreshold`; of two boxes of one class that overlap more than `nmsIoU`, the surer one stays;
/// at most `maxDetections`. `candidates` bounds what is suppressed, and is nil where the graph does it.
public struct Detection: Equatable, Sendable {
    public var form: Form
    public var scoreThreshold: Double
    public var nmsIoU: Double
    public var maxDetections: Int
    public var candidates: Int?
}

/// A rectangle in px, from its upper left corner to its lower right one.
public struct Box: Equatable, Sendable {
    public var x1: Double
    public var y1: Double
    public var x2: Double
    public var y2: Double

    public init(x1: Double, y1: Double, x2: Double, y2: Double) {
        self.x1 = x1
        self.y1 = y1
        self.x2 = x2
        self.y2 = y2
    }

    private var area: Double { (x2 - x1) * (y2 - y1) }

    /// The same with `margin` px more on every side.
    func grown(by margin: Double) -> Box {
        Box(x1: x1 - margin, y1: y1 - margin, x2: x2 + margin, y2: y2 + margin)
    }

    /// Intersection over union; 0 where neither has an area.
    func overlap(_ other: Box) -> Double {
        let width = max(min(x2, other.x2) - max(x1, other.x1), 0)
        let height = max(min(y2, other.y2) - max(y1, other.y1), 0)
        let intersection = width * height
        return intersection / max(area + other.area - intersection, .leastNormalMagnitude)
    }
}

/// An object in a picture, its class by number and how sure it is, 0..1.
public struct DetectedObject: Equatable, Sendable {
    public var box: Box
    public var score: Double
    public var label: Int

    public init(box: Box, score: Double, label: Int) {
        self.box = box
        self.score = score
        self.label = label
    }
}

/// As `runtime/detections.py` reads them; outputs are of the shapes that `Form` says, and finite.
extension Detection {
    /// The objects in an input of `width` x `height` px, the surest first, of equal ones the first.
    func objects(in outputs: [Tensor], width: Int, height: Int) -> [DetectedObject] {
        switch form {
        case .dense: suppressed(sureEnough(outputs[0], boxes: outputs[1]))
        case .coremlNMS: surest(outputs[0], coordinates: outputs[1], width: Double(width), height: Double(height))
        }
    }

    /// The surest pairs of anchor and class above the threshold.
    private func sureEnough(_ scores: Tensor, boxes: Tensor) -> [DetectedObject] {
        let classes = scores.shape[2]
        var pairs: [(index: Int, score: Double)] = []
        scores.values.withUnsafeBufferPointer { values in // there are millions of them
            for index in values.indices where Double(values[index]) > scoreThreshold {
                pairs.append((index, Double(values[index])))
            }
        }
        pairs.sort { $0.score == $1.score ? $0.index < $1.index : $0.score > $1.score }
        return pairs.prefix(candidates ?? pairs.count).map { pair in
            let box = boxes.row(pair.index / classes).map(Double.init)
            return DetectedObject(
                box: Box(x1: box[0], y1: box[1], x2: box[2], y2: box[3]),
                score: pair.score,
                label: pair.index % classes
            )
        }
    }

    /// Those that no surer one of their class overlaps too much; it ends with the last one that is needed.
    private func suppressed(_ candidates: [DetectedObject]) -> [DetectedObject] {
        var kept: [DetectedObject] = []
        for object in candidates {
            if kept.count == maxDetections { break }
            let isHidden = kept.contains { $0.label == object.label && $0.box.overlap(object.box) > nmsIoU }
            if !isHidden { kept.append(object) }
        }
        return kept
    }

    private func surest(
        _ confidence: Tensor, coordinates: Tensor, width: Double, height: Double
    ) -> [DetectedObject] {
        let objects = (0..<confidence.shape[0]).map { row in
            let scores = confidence.row(row)
            let label = scores.indices.reduce(0) { scores[$1] > scores[$0] ? $1 : $0 }
            let place = coordinates.row(row).map(Double.init)
            return DetectedObject(
                box: Box(
                    x1: (place[0] - place[2] / 2) * width, y1: (place[1] - place[3] / 2) * height,
                    x2: (place[0] + place[2] / 2) * width, y2: (place[1] + place[3] / 2) * height
                ),
                score: Double(max(scores[label], 0)),
                label: label
            )
        }
        let order = objects.indices.sorted {
            objects[$0].score == objects[$1].score ? $0 < $1 : objects[$0].score > objects[$1].score
        }
        return order.prefix(maxDetections).map { objects[$0] }
    }
}

extension Tensor {
    /// The values along the last side, the `index`th of all.
    fileprivate func row(_ index: Int) -> [Float] {
        let length = shape[shape.count - 1]
        return Array(values[index * length..<(index + 1) * length])
    }
}
