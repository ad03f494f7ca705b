#if canImport(CoreML)
import CoreML
import CoreVideo
import DMFClassifier
import Foundation

/// What a prediction reads its input from.
enum InputBuffer {
    case tensor(MLMultiArray)
    case image(CVPixelBuffer)

    init(_ spec: InputSpec) throws {
        switch spec.dtype {
        case .float32:
            let shape = spec.shape.map { NSNumber(value: abs($0)) } // -1 is any number of images: one
            self = .tensor(try MLMultiArray(shape: shape, dataType: .float32))
        case .image:
            self = .image(try makePixelBuffer(width: spec.cropWidth, height: spec.cropHeight))
        }
    }

    var value: MLFeatureValue {
        switch self {
        case .tensor(let array): MLFeatureValue(multiArray: array)
        case .image(let pixelBuffer): MLFeatureValue(pixelBuffer: pixelBuffer)
        }
    }

    /// PredictorError: the manifest says that the artifact takes the other kind.
    func fill(with input: ModelInput) throws {
        switch (self, input) {
        case (.tensor(let array), .tensor(let values)):
            precondition(values.count == array.count, "\(values.count) numbers, the input takes \(array.count)")
            values.withUnsafeBytes { bytes in
                if let start = bytes.baseAddress {
                    array.dataPointer.copyMemory(from: start, byteCount: bytes.count)
                }
            }
        case (.image(let pixelBuffer), .image(let pixels)):
            pixelBuffer.write(pixels)
        case (.tensor, .image), (.image, .tensor):
            throw PredictorError("the input is of the wrong kind; make it by Preprocess from the manifest's inputs[0]")
        }
    }
}
#endif
