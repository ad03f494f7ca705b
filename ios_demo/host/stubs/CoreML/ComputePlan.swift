import Foundation

@available(iOS 17.4, macOS 14.4, *)
public final class MLComputePlan { // = MLComputePlan
    public static func load(contentsOf url: URL, configuration: MLModelConfiguration) async throws -> MLComputePlan { fatalError() } // = +[MLComputePlan loadContentsOfURL:configuration:completionHandler:]
    public var modelStructure: MLModelStructure { fatalError() } // = MLComputePlan.modelStructure
    public func deviceUsage(for operation: MLModelStructure.Program.Operation) -> DeviceUsage? { fatalError() } // = -[MLComputePlan computeDeviceUsageForMLProgramOperation:]

    public struct DeviceUsage { // = MLComputePlanDeviceUsage
        public var preferred: MLComputeDevice { fatalError() } // = MLComputePlanDeviceUsage.preferredComputeDevice
    }
}

@available(iOS 17.0, macOS 14.0, *)
public enum MLComputeDevice { // = MLComputeDeviceProtocol
    case cpu(MLCPUComputeDevice) // = MLCPUComputeDevice
    case gpu(MLGPUComputeDevice) // = MLGPUComputeDevice
    case neuralEngine(MLNeuralEngineComputeDevice) // = MLNeuralEngineComputeDevice
}

@available(iOS 17.0, macOS 14.0, *)
public final class MLCPUComputeDevice {} // = MLCPUComputeDevice

@available(iOS 17.0, macOS 14.0, *)
public final class MLGPUComputeDevice {} // = MLGPUComputeDevice

@available(iOS 17.0, macOS 14.0, *)
public final class MLNeuralEngineComputeDevice {} // = MLNeuralEngineComputeDevice

@available(iOS 17.4, macOS 14.4, *)
public enum MLModelStructure { // = MLModelStructure
    case neuralNetwork(NeuralNetwork) // = MLModelStructure.neuralNetwork
    case program(Program) // = MLModelStructure.program
    case pipeline(Pipeline) // = MLModelStructure.pipeline

    public struct NeuralNetwork {} // = MLModelStructureNeuralNetwork

    public struct Program { // = MLModelStructureProgram
        public var functions: [String: Function] { fatalError() } // = MLModelStructureProgram.functions

        public struct Function { // = MLModelStructureProgramFunction
            public var block: Block { fatalError() } // = MLModelStructureProgramFunction.block
        }

        public struct Block { // = MLModelStructureProgramBlock
            public var operations: [Operation] { fatalError() } // = MLModelStructureProgramBlock.operations
        }

        public struct Operation { // = MLModelStructureProgramOperation
            public var operatorName: String { fatalError() } // = MLModelStructureProgramOperation.operatorName
            public var outputs: [NamedValueType] { fatalError() } // = MLModelStructureProgramOperation.outputs
            public var blocks: [Block] { fatalError() } // = MLModelStructureProgramOperation.blocks
        }

        public struct NamedValueType { // = MLModelStructureProgramNamedValueType
            public var name: String { fatalError() } // = MLModelStructureProgramNamedValueType.name
        }
    }

    public struct Pipeline { // = MLModelStructurePipeline
        public var subModels: [MLModelStructure] { fatalError() } // = MLModelStructurePipeline.subModels
    }
}
