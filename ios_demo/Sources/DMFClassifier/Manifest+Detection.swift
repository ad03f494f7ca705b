/// A classifier's first output is its logits; a detector has those of its form.
func readOutputs(_ json: JSONFields, of form: Form?) throws -> [OutputSpec] {
    let all = try json.listOfFields("outputs")
    let outputs = try all.enumerated().map { index, output in
        try index == 0 && form == nil ? OutputSpec(logits: output) : OutputSpec(output)
    }
    guard let form else { return outputs }
    let read = try form.outputs.map { name in
        guard let index = outputs.firstIndex(where: { $0.name == name }) else {
            throw json.error("outputs", "have no \"\(name)\", which is one of form \(form.rawValue); \(exportAgain)")
        }
        _ = try all[index].choice("dtype", of: ["float32", "float16", "float64"])
        return all[index]
    }
    let allowed = form.allowed(try OutputSpec(read[0]).shape)
    for (output, shape) in zip(read, allowed.shapes) { _ = try output.ints("shape", allowed.words) { $0 == shape } }
    return outputs
}

/// It is given one picture at a time, and has one function.
func checkDetector(_ json: JSONFields, _ input: JSONFields) throws {
    _ = try input.ints("shape", "of batch 1 for a detector") { $0[0] == 1 }
    _ = try json.field("functions", "[] for a detector") { $0 == .list([]) ? $0 : nil }
}

extension Detection {
    init(_ json: JSONFields) throws {
        form = try json.choice("form")
        scoreThreshold = try json.share("score_threshold")
        nmsIoU = try json.share("nms_iou")
        maxDetections = try json.int("max_detections", min: 1)
        candidates = switch form {
        case .dense: try json.int("candidates", min: 1)
        case .coremlNMS: try json.intOrNull("candidates")
        }
    }
}

extension Form {
    /// The shapes of `outputs`, where that of the first is `shape`, and in words.
    fileprivate func allowed(_ shape: [Int]) -> (shapes: [[Int]], words: String) {
        let classes = max(shape.last ?? 1, 1)
        switch self {
        case .dense:
            let anchors = max(shape.count == 3 ? shape[1] : 1, 1)
            let words = "[1, anchors, classes] of scores, [1, anchors, 4] of boxes"
            return ([[1, anchors, classes], [1, anchors, 4]], words)
        case .coremlNMS:
            return ([[-1, classes], [-1, 4]], "[-1, classes] of confidence, [-1, 4] of coordinates")
        }
    }
}
