#if canImport(CoreML)
import CoreML
import DMFClassifier

/// Core ML, with the names of the manifest and a buffer for the input that every prediction uses again.
final class CoreMLPredictor: Predictor {
    let runtime: RuntimeInfo
    private let model: MLModel
    private let names: [String]
    private let buffer: InputBuffer
    private let features: MLDictionaryFeatureProvider

    init(_ model: MLModel, _ manifest: Manifest, on computeUnits: ComputeUnits) throws {
        runtime = RuntimeInfo(name: "coreml", version: Device.os, computeUnits: computeUnits)
        self.model = model
        names = manifest.answers.map(\.name)
        buffer = try InputBuffer(manifest.input)
        features = try MLDictionaryFeatureProvider(dictionary: [manifest.input.name: buffer.value])
    }

    func outputs(for input: ModelInput) throws -> Outputs {
        try buffer.fill(with: input)
        let features: any MLFeatureProvider
        do {
            features = try model.prediction(from: self.features)
        } catch {
            throw PredictorError(cannot: "run it on \(runtime.computeUnits.rawValue)", because: error)
        }
        return try names.reduce(into: [:]) { outputs, name in
            guard let array = features.featureValue(for: name)?.multiArrayValue else {
                let problem = "the artifact has no array \"\(name)\" among its outputs"
                throw PredictorError("\(problem); export the package again")
            }
            outputs[name] = Tensor(array)
        }
    }
}

extension Tensor {
    /// Of float16 and float64, too, and however its rows are padded. Where nothing is found it has no numbers.
    fileprivate init(_ array: MLMultiArray) {
        let shape = array.shape.map(\.intValue)
        self.init(shape: shape, values: shape.contains(0) ? [] : MLShapedArray<Float>(converting: array).scalars)
    }
}
#endif
