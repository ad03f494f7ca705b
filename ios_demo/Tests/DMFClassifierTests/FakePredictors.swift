import Foundation
import XCTest

@testable import DMFClassifier

let fakeRuntime = RuntimeInfo(name: "coreml", version: "macOS 15.1", computeUnits: .all)

/// The tiny model in plain Swift: one dense layer with the weights `name` of the fixtures, summed in float32.
///
/// A smaller input meets the first rows of the weights.
struct DensePredictor: Predictor {
    let runtime = fakeRuntime
    private let weights: [Float]
    private let classes: Int
    private let spec: InputSpec

    init(_ name: String = "w") throws {
        let tensor = try Fixtures.tensors("weights").tensor(name, .float32, rank: 2)
        weights = tensor.floats
        classes = tensor.shape[1]
        var spec = try Fixtures.openPackage().manifest.input
        spec.dtype = .float32
        spec.normalisationInGraph = false
        self.spec = spec
    }

    func outputs(for input: ModelInput) throws -> Outputs {
        DMFClassifierTests.outputs(ofLogits: layer(numbers(input), weights, columns: classes))
    }

    /// An image is normalised here, as in a graph.
    private func numbers(_ input: ModelInput) -> [Float] {
        switch input {
        case .tensor(let values): values
        case .image(let pixels): Preprocess.normalise(pixels, spec)
        }
    }
}

/// Sums in float32 of one input, (columns).
func layer(_ input: [Float], _ weights: [Float], columns: Int) -> [Float] {
    var sums = [Float](repeating: 0, count: columns)
    for (row, value) in input.enumerated() {
        for column in 0..<columns { sums[column] += value * weights[row * columns + column] }
    }
    return sums
}

func outputs(ofLogits logits: [Float]) -> Outputs {
    ["logits": Tensor(shape: [1, logits.count], values: logits)]
}

extension Predictor {
    func logits(for input: ModelInput) throws -> [Float] {
        try XCTUnwrap(outputs(for: input)["logits"]).values
    }
}

/// A predictor whose answers are changed: the closure gets the number of the run, from 0, the input and the outputs.
final class ChangedPredictor: Predictor {
    let runtime = fakeRuntime
    private let predictor: any Predictor
    private let change: (Int, ModelInput, Outputs) throws -> Outputs
    private var runs = 0

    private init(predictor: any Predictor, change: @escaping (Int, ModelInput, Outputs) throws -> Outputs) {
        self.predictor = predictor
        self.change = change
    }

    static func outputs(
        of predictor: any Predictor, _ change: @escaping (Int, ModelInput, Outputs) throws -> Outputs
    ) -> ChangedPredictor {
        ChangedPredictor(predictor: predictor, change: change)
    }

    /// The same of logits.
    convenience init(_ predictor: any Predictor, _ change: @escaping (Int, ModelInput, [Float]) throws -> [Float]) {
        self.init(predictor: predictor) { run, input, outputs in
            DMFClassifierTests.outputs(ofLogits: try change(run, input, XCTUnwrap(outputs["logits"]).values))
        }
    }

    func outputs(for input: ModelInput) throws -> Outputs {
        defer { runs += 1 }
        return try change(runs, input, predictor.outputs(for: input))
    }
}

/// A network that routes every image like the first one it sees.
func frozenPredictor() throws -> ChangedPredictor {
    let frozen = try DensePredictor("frozen")
    return ChangedPredictor(try DensePredictor()) { run, input, logits in
        run == 0 ? logits : try frozen.logits(for: input)
    }
}

/// Opens what a test gives it. It is used by one task at a time.
final class FakeModel: OpenableModel, @unchecked Sendable {
    var plan: ComputePlan?
    private let makePredictor: (ComputeUnits) throws -> any Predictor

    init(_ makePredictor: @escaping (ComputeUnits) throws -> any Predictor) {
        self.makePredictor = makePredictor
    }

    func open(on computeUnits: ComputeUnits) throws -> any Predictor {
        try makePredictor(computeUnits)
    }

    func computePlan(on computeUnits: ComputeUnits) async throws -> ComputePlan? {
        plan
    }
}

/// A device whose time passes when it is told to. It is used by one task at a time.
final class FakeDevice: MeasuredDevice, @unchecked Sendable {
    var isSimulator = false
    var currentState = DeviceState(
        thermalStatus: 0, batteryPercent: 80, charging: false, batterySaver: false, screenOn: true, loadAverage: nil
    )
    var peakBytes = 123_456_512
    let description = DeviceDescription(
        platform: .iOS, model: "iPhone99,1", majorOSVersion: 18, os: "iOS 18.1", machine: "arm64", cpu: "iPhone99,1",
        logicalCores: 6, app: "org.dmf.demo 0.1.0"
    )
    private var time: UInt64 = 1_000_000_000_000

    func pass(ms: Double) {
        time += UInt64(ms * 1e6)
    }

    func state() -> DeviceState { currentState }
    func peakMemoryBytes() -> Int { peakBytes }
    func nanoseconds() -> UInt64 { time }
    func now() -> Date { Date(timeIntervalSince1970: 1_763_884_805.678) } // 2025-11-23T08:00:05.678 UTC
}
