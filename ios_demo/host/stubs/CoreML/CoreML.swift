@_exported import CoreVideo

public final class MLModel: @unchecked Sendable { // = MLModel
    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws { fatalError() } // = +[MLModel modelWithContentsOfURL:configuration:error:]
    public static func compileModel(at url: URL) async throws -> URL { fatalError() } // = +[MLModel compileModelAtURL:completionHandler:]
    public func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider { fatalError() } // = -[MLModel predictionFromFeatures:error:]
}

open class MLModelConfiguration { // = MLModelConfiguration
    public init() { fatalError() } // = +[MLModelConfiguration new]
    public var computeUnits: MLComputeUnits { get { fatalError() } set { fatalError() } } // = MLModelConfiguration.computeUnits
    @available(iOS 18.0, macOS 15.0, *)
    public var functionName: String? { get { fatalError() } set { fatalError() } } // = MLModelConfiguration.functionName
}

public enum MLComputeUnits: Int { // = MLComputeUnits
    case cpuOnly // = MLComputeUnits.CPUOnly
    case cpuAndGPU // = MLComputeUnits.CPUAndGPU
    case all // = MLComputeUnits.All
    case cpuAndNeuralEngine // = MLComputeUnits.CPUAndNeuralEngine
}

public protocol MLFeatureProvider { // = MLFeatureProvider
    func featureValue(for name: String) -> MLFeatureValue? // = -[MLFeatureProvider featureValueForName:]
}

public final class MLDictionaryFeatureProvider: MLFeatureProvider { // = MLDictionaryFeatureProvider
    public init(dictionary: [String: Any]) throws { fatalError() } // = -[MLDictionaryFeatureProvider initWithDictionary:error:]
    public func featureValue(for name: String) -> MLFeatureValue? { fatalError() } // = -[MLDictionaryFeatureProvider featureValueForName:]
}

public final class MLFeatureValue { // = MLFeatureValue
    public convenience init(multiArray value: MLMultiArray) { fatalError() } // = +[MLFeatureValue featureValueWithMultiArray:]
    public convenience init(pixelBuffer value: CVPixelBuffer) { fatalError() } // = +[MLFeatureValue featureValueWithPixelBuffer:]
    public var multiArrayValue: MLMultiArray? { fatalError() } // = MLFeatureValue.multiArrayValue
}

public enum MLMultiArrayDataType: Int { // = MLMultiArrayDataType
    case float32 // = MLMultiArrayDataType.Float32
}

public final class MLMultiArray { // = MLMultiArray
    public init(shape: [NSNumber], dataType: MLMultiArrayDataType) throws { fatalError() } // = -[MLMultiArray initWithShape:dataType:error:]
    public var dataPointer: UnsafeMutableRawPointer { fatalError() } // = MLMultiArray.dataPointer
    public var count: Int { fatalError() } // = MLMultiArray.count
    public var shape: [NSNumber] { fatalError() } // = MLMultiArray.shape
}

public protocol MLShapedArrayScalar {} // Swift
extension Float: MLShapedArrayScalar {}

public struct MLShapedArray<Scalar: MLShapedArrayScalar> { // Swift
    public init(converting array: MLMultiArray) { fatalError() } // Swift
    public var scalars: [Scalar] { fatalError() } // Swift
}
