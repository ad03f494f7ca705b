#if canImport(CoreML)
import CoreML
import DMFClassifier
import Foundation

@available(iOS 17.4, macOS 14.4, *)
extension ComputePlan {
    /// What Core ML means to run on which device. Constants, which it plans nothing for, are not counted.
    init(
        ofModelAt location: URL, function: String?, on computeUnits: ComputeUnits, modules: [TappedModule]
    ) async throws {
        let configuration = try MLModelConfiguration(computeUnits, function)
        let plan = try await MLComputePlan.load(contentsOf: location, configuration: configuration)
        let name = function ?? "main" // what the only one is called
        guard let operations = plan.operations(in: plan.modelStructure, function: name) else {
            throw PredictorError("it is no ML program with a function \(name)")
        }
        self.init(operations, modules: modules)
    }
}

@available(iOS 17.4, macOS 14.4, *)
extension MLComputePlan {
    /// Of a pipeline, those of its programs, which a detector's suppression is not. nil: there is no program.
    fileprivate func operations(in structure: MLModelStructure, function: String) -> [PlannedOperation]? {
        switch structure {
        case .program(let program):
            return program.functions[function].map { operations(in: $0.block) }
        case .pipeline(let pipeline):
            let programs = pipeline.subModels.compactMap { operations(in: $0, function: function) }
            return programs.isEmpty ? nil : programs.flatMap { $0 }
        default:
            return nil
        }
    }

    private func operations(in block: MLModelStructure.Program.Block) -> [PlannedOperation] {
        block.operations.flatMap { operation in
            let preferred = deviceUsage(for: operation).flatMap { ComputeDevice($0.preferred) }
            let planned = preferred.map { device in
                PlannedOperation(
                    type: operation.operatorName, outputs: operation.outputs.map(\.name), preferred: device
                )
            }
            return [planned].compactMap { $0 } + operation.blocks.flatMap(operations)
        }
    }
}

@available(iOS 17.4, macOS 14.4, *)
extension ComputeDevice {
    fileprivate init?(_ device: MLComputeDevice) {
        switch device {
        case .cpu: self = .cpu
        case .gpu: self = .gpu
        case .neuralEngine: self = .neuralEngine
        @unknown default: return nil
        }
    }
}
#endif
