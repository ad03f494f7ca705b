/// What a network says of a picture, the surest first.
public enum Findings: Equatable, Sendable {
    /// Every class that a classifier knows.
    case classes([Prediction])
    /// What a detector found, in px of the input.
    case objects([DetectedObject])
}

extension Manifest {
    /// What `outputs` mean.
    ///
    /// PredictorError: one is missing, of another shape than the manifest says, or not finite.
    public func findings(in outputs: Outputs) throws -> Findings {
        guard let findings = findings(of: try read(outputs)) else {
            throw PredictorError("the network's answer is no number; use other compute units")
        }
        return findings
    }

    /// What these `answers` mean; nil where they are not all finite.
    func findings(of tensors: [Tensor]) -> Findings? {
        guard tensors.allSatisfy({ $0.values.allSatisfy(\.isFinite) }) else { return nil }
        guard let detection else {
            let probabilities = softmax(tensors[0].values)
            return .classes(topK(probabilities, probabilities.count))
        }
        return .objects(detection.objects(in: tensors, width: input.cropWidth, height: input.cropHeight))
    }

    /// Those of `outputs` that are `answers`. PredictorError: one is missing, or of another shape.
    func read(_ outputs: Outputs) throws -> [Tensor] {
        let tensors = try answers.map { spec in
            guard let tensor = outputs[spec.name] else {
                throw PredictorError("the artifact has no output \"\(spec.name)\"; \(exportAgain)")
            }
            let shape = detection == nil ? spec.shape.map(abs) : spec.shape // logits may vary in batch, here it is 1
            let fits = zip(tensor.shape, shape).allSatisfy { $0 == $1 || $1 == -1 }
            guard fits, tensor.shape.count == shape.count else {
                let found = "the artifact's \(spec.name) are \(tensor.shape)"
                throw PredictorError("\(found), must be \(shape); \(exportAgain)")
            }
            return tensor
        }
        let rows = tensors.map { $0.shape[0] }
        guard Set(rows).count == 1 else {
            throw PredictorError("the artifact's outputs are of \(rows) objects, must be of as many; \(exportAgain)")
        }
        return tensors
    }
}
