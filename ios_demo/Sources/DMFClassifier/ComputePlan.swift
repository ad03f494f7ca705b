/// What an operation runs on.
public enum ComputeDevice: Sendable {
    case cpu
    case gpu
    case neuralEngine
}

/// One operation of a program: its type, as in ios17.conv, the names of what it computes, and what it is best run on.
public struct PlannedOperation: Equatable, Sendable {
    public var type: String
    public var outputs: [String]
    public var preferred: ComputeDevice

    public init(type: String, outputs: [String], preferred: ComputeDevice) {
        self.type = type
        self.outputs = outputs
        self.preferred = preferred
    }
}

/// How many operations prefer each device.
public struct DeviceCounts: Equatable, Sendable {
    public var cpu = 0
    public var gpu = 0
    public var neuralEngine = 0

    mutating func count(_ device: ComputeDevice) {
        switch device {
        case .cpu: cpu += 1
        case .gpu: gpu += 1
        case .neuralEngine: neuralEngine += 1
        }
    }
}

/// Where the operations of a program run, altogether and by type and PyTorch module.
public struct ComputePlan: Equatable, Sendable {
    /// `module` is nil for an operation that computes no module's output.
    public struct Entry: Equatable, Sendable {
        public var type: String
        public var module: String?
        public var counts: DeviceCounts
    }

    public private(set) var counts = DeviceCounts()
    public let entries: [Entry]

    /// Counts operations; `modules` are the golden vectors', whose tensors are these operations' outputs.
    public init(_ operations: [PlannedOperation], modules: [TappedModule]) {
        let moduleOfTensor = Dictionary(
            modules.flatMap { tapped in tapped.tensors.map { ($0, tapped.module) } },
            uniquingKeysWith: { first, _ in first }
        )
        var found: [Entry] = []
        for operation in operations {
            counts.count(operation.preferred)
            let module = operation.outputs.lazy.compactMap { moduleOfTensor[$0] }.first
            let index = found.firstIndex { $0.type == operation.type && $0.module == module } ?? found.endIndex
            if index == found.endIndex {
                found.append(Entry(type: operation.type, module: module, counts: DeviceCounts()))
            }
            found[index].counts.count(operation.preferred)
        }
        entries = found
    }
}
