import DMFClassifier
import Foundation

@testable import DMFDemo

/// The tiny packages of tests/fixtures; their artifacts are no models, so a fake runs them.
enum Fixtures {
    private static let folder = ProcessInfo.processInfo.environment["DMF_FIXTURES"].map { URL(fileURLWithPath: $0) }
        ?? Bundle(for: LaunchArgumentsTests.self).bundleURL // Xcode copies them there

    static let packageFolder = folder.appendingPathComponent("package-coreml")
    /// Of two functions.
    static let sizesFolder = folder.appendingPathComponent("package-coreml-sizes")
    static let detectorFolder = folder.appendingPathComponent("package-detector-coreml")
}

/// Answers golden images with their golden answers, `offset` beside them, and others with the first ones.
struct FakeModel: OpenableModel {
    let package: ModelPackage
    var offset: Float = 0

    func open(on computeUnits: ComputeUnits) throws -> any Predictor {
        if computeUnits == .cpuAndGPU { throw PredictorError("this device has no GPU") }
        return FakePredictor(computeUnits: computeUnits, package: package, offset: offset)
    }

    func computePlan(on computeUnits: ComputeUnits) async throws -> ComputePlan? { nil }
}

private struct FakePredictor: Predictor {
    let computeUnits: ComputeUnits
    let package: ModelPackage
    let offset: Float

    var runtime: RuntimeInfo { RuntimeInfo(name: "coreml", version: "iOS 18.1", computeUnits: computeUnits) }

    func outputs(for input: ModelInput) throws -> Outputs {
        guard let golden = package.golden else { return [:] }
        let index = golden.images.firstIndex { Preprocess.input(of: $0, package.manifest.input) == input } ?? 0
        return DMFDemoTests.outputs(golden, index, offset: offset)
    }
}

/// What a network answers whose golden vectors these are, with `offset` beside it; object i is of anchor i of 6.
func outputs(_ golden: Golden, _ index: Int, offset: Float = 0) -> Outputs {
    switch golden.answers {
    case .logits(let logits, _):
        return ["logits": Tensor(shape: [1, logits[index].count], values: logits[index].map { Float($0) + offset })]
    case .objects(let objects, _):
        var (scores, boxes) = ([Float](repeating: 0, count: 6 * 5), [Float](repeating: 0, count: 6 * 4))
        for (anchor, expected) in objects[index].enumerated() {
            let box = expected.object.box
            scores[anchor * 5 + expected.object.label] = Float(expected.object.score) + offset
            boxes.replaceSubrange(anchor * 4..<anchor * 4 + 4, with: [box.x1, box.y1, box.x2, box.y2].map(Float.init))
        }
        return ["scores": Tensor(shape: [1, 6, 5], values: scores), "boxes": Tensor(shape: [1, 6, 4], values: boxes)]
    }
}

extension Golden {
    /// A classifier's.
    var logits: [[Double]] { if case .logits(let logits, _) = answers { logits } else { [] } }
}

/// A phone on which each look at the clock is one millisecond after the last.
final class FakeDevice: MeasuredDevice, @unchecked Sendable { // tests look at it one after the other
    let isSimulator: Bool
    private var milliseconds: UInt64 = 0

    init(isSimulator: Bool = false) {
        self.isSimulator = isSimulator
    }

    var description: DeviceDescription {
        DeviceDescription(
            platform: .iOS, model: "iPhone16,2", majorOSVersion: 18, os: "iOS 18.1", machine: "arm64", cpu: "A17",
            logicalCores: 6, app: "org.dmf.demo 0.1.0"
        )
    }

    func state() -> DeviceState {
        DeviceState(
            thermalStatus: 0, batteryPercent: 80, charging: false, batterySaver: false, screenOn: true, loadAverage: nil
        )
    }

    func peakMemoryBytes() -> Int { 1 << 20 }

    func nanoseconds() -> UInt64 {
        milliseconds += 1
        return milliseconds * 1_000_000
    }

    func now() -> Date { Date(timeIntervalSince1970: 0) }
}

/// A folder of its own for each test, which is removed after it.
func withFolder<T>(_ body: (URL) async throws -> T) async throws -> T {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    return try await body(folder)
}
