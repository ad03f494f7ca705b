/// What Core ML may run operations on; the raw value is its name in reports and on command lines.
public enum ComputeUnits: String, CaseIterable, Sendable {
    case all
    case cpuAndNeuralEngine = "cpu_and_neural_engine"
    case cpuAndGPU = "cpu_and_gpu"
    case cpuOnly = "cpu_only"

    /// PredictorError: none has this name.
    public init(named name: String) throws {
        guard let units = ComputeUnits(rawValue: name) else {
            let known = ComputeUnits.allCases.map(\.rawValue).joined(separator: ", ")
            throw PredictorError("compute units \"\(name)\" are not one of \(known)")
        }
        self = units
    }
}
