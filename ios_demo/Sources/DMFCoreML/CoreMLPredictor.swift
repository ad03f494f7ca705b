#if canImport(CoreML)
import CoreML
import DMFClassifier

/// Core ML, with the names of the manifest and a buffer for the input that every prediction uses again.
final class CoreMLPredictor: Predictor {
    let runtime: RuntimeInfo
    private let model: MLModel
    private let logitsName: String
    private let buffer: InputBuffer
    private let features: MLDictionaryFeatureProvider

    init(_ model: MLModel, _ manifest: Manifest, on computeUnits: ComputeUnits) throws {
        runtime = RuntimeInfo(name: "coreml", version: Device.os, computeUnits: computeUnits)
        self.model = model
        logitsName = manifest.logits.name
        buffer = try InputBuffer(manifest.input)
        features = try MLDictionaryFeatureProvider(dictionary: [manifest.input.name: buffer.value])
    }

    func logits(for input: ModelInput) throws -> [Float] {
        try buffer.fill(with: input)
        let outputs: any MLFeatureProvider
        do {
            outputs = try model.prediction(from: features)
        } catch {
            throw PredictorError(cannot: "run it on \(runtime.computeUnits.rawValue)", because: error)
        }
        guard let logits = outputs.featureValue(for: logitsName)?.multiArrayValue else {
            let problem = "the artifact has no array \"\(logitsName)\" among its outputs"
            throw PredictorError("\(problem); export the package again")
        }
        return MLShapedArray<Float>(converting: logits).scalars // of float16, too, and however its rows are padded
    }
}
#endif
