import Foundation

/// Measures a package's artifact on a device; `isForeground` is asked before each timed run and after the last.
public struct Benchmark: Sendable {
    private let package: ModelPackage
    private let model: any OpenableModel
    private let device: any MeasuredDevice
    private let postProcessing: PostProcessing?
    private let isForeground: @Sendable () -> Bool

    /// `postProcessing`: choosing a detector's objects is a part of a sample, where its graph does not choose them.
    ///
    /// PredictorError: the device is a simulator.
    public init(
        of package: ModelPackage, model: any OpenableModel, on device: any MeasuredDevice, postProcessing: Bool = false,
        isForeground: @escaping @Sendable () -> Bool
    ) throws {
        guard !device.isSimulator else {
            throw PredictorError("this is a simulator, its time is not latency; use a phone, or dmf-bench-coreml")
        }
        self.package = package
        self.model = model
        self.device = device
        self.postProcessing = package.manifest.detection.map { PostProcessing($0.form, isTimed: postProcessing) }
        self.isForeground = isForeground
    }

    /// Opens the artifact, runs the golden images through it, then `warmup` runs untimed and `repeats` timed.
    ///
    /// It never waits between two of these. PredictorError: a number out of range, or the runtime cannot.
    /// CancellationError: the task was cancelled, which is looked at before each run.
    public func measure(_ computeUnits: ComputeUnits, warmup: Int, repeats: Int) async throws -> LatencyReport {
        try check("warmup", warmup, atLeast: 0)
        try check("repeats", repeats, atLeast: 1)
        var report = try measureNow(computeUnits, warmup: warmup, repeats: repeats)
        report.computePlan = try await model.computePlan(on: computeUnits)
        return report
    }

    private func measureNow(_ computeUnits: ComputeUnits, warmup: Int, repeats: Int) throws -> LatencyReport {
        let (input, inputName) = benchmarkInput(package)
        let measuredAt = device.now()
        let before = device.state()
        let baselineMemoryBytes = device.peakMemoryBytes()
        let (predictor, coldLoadMs) = try timed { try model.open(on: computeUnits) }
        let selfTest = try package.golden.map { try SelfTest.run(predictor, $0, package.manifest) }
        for _ in 0..<warmup { try run(predictor, input) }
        var foreground = true
        let samplesMs = try (0..<repeats).map { _ in
            foreground = isForeground() && foreground
            return try timed { try run(predictor, input) }.ms
        }
        foreground = isForeground() && foreground
        let after = device.state()
        return LatencyReport(
            manifest: package.manifest,
            artifactSHA256: package.artifactSHA256,
            runtime: predictor.runtime,
            input: inputName,
            postProcessing: postProcessing,
            warmupCount: warmup,
            coldLoadMs: coldLoadMs,
            samplesMs: samplesMs,
            baselineMemoryBytes: baselineMemoryBytes,
            peakMemoryBytes: device.peakMemoryBytes(),
            selfTest: selfTest,
            invalidBecause: invalidBecause(
                samplesMs, before: before, after: after, foreground: foreground, selfTestPassed: selfTest?.passed
            ),
            computePlan: nil,
            measuredAt: measuredAt,
            device: device.description,
            before: before,
            after: after
        )
    }

    private func run(_ predictor: any Predictor, _ input: ModelInput) throws {
        try Task.checkCancellation()
        let outputs = try predictor.outputs(for: input)
        if postProcessing == .runner { _ = try package.manifest.findings(in: outputs) }
    }

    private func timed<T>(_ work: () throws -> T) rethrows -> (value: T, ms: Double) {
        let start = device.nanoseconds()
        let value = try work()
        return (value, Double(device.nanoseconds() - start) / 1e6)
    }
}

private func check(_ name: String, _ value: Int, atLeast min: Int) throws {
    guard value >= min else { throw PredictorError("\(name) is \(value), it must be >= \(min)") }
}

/// Golden image 0, or seeded noise where the package has no golden vectors, and which of them it is.
private func benchmarkInput(_ package: ModelPackage) -> (ModelInput, String) {
    let spec = package.manifest.input
    if let golden = package.golden {
        return (Preprocess.input(of: golden.images[0], spec), "golden image 0: \(golden.names[0])")
    }
    var random = SplitMix64(state: 0)
    let rgb = (0..<spec.cropHeight * spec.cropWidth * Pixels.channels).map { _ in
        UInt8(truncatingIfNeeded: random.next())
    }
    let noise = Pixels(width: spec.cropWidth, height: spec.cropHeight, rgb: rgb)
    return (Preprocess.input(of: noise, spec), "noise, SplitMix64 seed 0")
}

/// Steele, Lea and Flood (2014): the same numbers everywhere, which the standard library's generator does not promise.
private struct SplitMix64: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var word = state
        word = (word ^ (word >> 30)) &* 0xbf58_476d_1ce4_e5b9
        word = (word ^ (word >> 27)) &* 0x94d0_49bb_1331_11eb
        return word ^ (word >> 31)
    }
}
