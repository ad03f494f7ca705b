/// Who runs an artifact, and on what.
public struct RuntimeInfo: Equatable, Sendable {
    public var name: String
    public var version: String
    public var computeUnits: ComputeUnits

    public init(name: String, version: String, computeUnits: ComputeUnits) {
        self.name = name
        self.version = version
        self.computeUnits = computeUnits
    }
}

/// One output of a network, row by row.
public struct Tensor: Equatable, Sendable {
    public var shape: [Int]
    public var values: [Float]

    public init(shape: [Int], values: [Float]) {
        self.shape = shape
        self.values = values
    }
}

/// Outputs by their names.
public typealias Outputs = [String: Tensor]

/// An opened artifact, to be used by one thread at a time.
public protocol Predictor {
    var runtime: RuntimeInfo { get }

    /// What it makes of one picture: the outputs that the manifest's `answers` name.
    ///
    /// PredictorError: the runtime refuses it.
    func outputs(for input: ModelInput) throws -> Outputs
}

/// A package's artifact, ready to be opened.
public protocol OpenableModel: Sendable {
    /// Opens it. PredictorError: the runtime cannot.
    func open(on computeUnits: ComputeUnits) throws -> any Predictor

    /// What runs on which unit; nil where the OS does not tell. PredictorError: it fails to.
    func computePlan(on computeUnits: ComputeUnits) async throws -> ComputePlan?
}
