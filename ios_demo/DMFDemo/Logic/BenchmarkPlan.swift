import DMFClassifier
import Foundation

/// Makes a package's artifact ready to be opened; on Apple's systems `CompiledModel.compile`.
typealias Compile = @Sendable (ModelPackage) async throws -> any OpenableModel

/// One of the measurements of a plan, the `index`th of `count`, from 0.
struct BenchmarkStep: Equatable, Sendable {
    let input: InputSpec
    let computeUnits: ComputeUnits
    let index: Int
    let count: Int
}

/// What is to be measured: the function of this name, or, where it is nil, each that the package has.
struct BenchmarkPlan: Equatable, Sendable {
    static let warmupRange = 0...10_000
    static let repeatsRange = 1...10_000

    let folder: URL
    let function: String?
    let computeUnits: [ComputeUnits]
    let warmup: Int
    let repeats: Int
    /// Whether choosing a detector's objects is timed, too, where its graph does not choose them.
    let postProcessing: Bool

    /// ArgumentError: a number is out of range, or there is nothing to measure.
    init(
        folder: URL, function: String? = nil, computeUnits: [ComputeUnits], warmup: Int, repeats: Int,
        postProcessing: Bool = false
    ) throws {
        guard !computeUnits.isEmpty else { throw ArgumentError("no compute units are given; give at least one") }
        guard Set(computeUnits).count == computeUnits.count else {
            throw ArgumentError("compute units are given twice; give them once")
        }
        try check("warmup", warmup, BenchmarkPlan.warmupRange)
        try check("repeats", repeats, BenchmarkPlan.repeatsRange)
        self.folder = folder
        self.function = function
        self.computeUnits = computeUnits
        self.warmup = warmup
        self.repeats = repeats
        self.postProcessing = postProcessing
    }

    /// Measures one function after the other, each on each of the compute units; `begin` is told of each before.
    ///
    /// PackageError, PredictorError: the first of them that fails. CancellationError: the task was cancelled.
    func measure(
        on device: any MeasuredDevice, compile: Compile, foreground: Foreground,
        begin: (BenchmarkStep) async -> Void
    ) async throws -> [LatencyReport] {
        let functions = try ModelPackage(contentsOf: folder).functions(named: function)
        let count = functions.count * computeUnits.count
        var reports: [LatencyReport] = []
        for function in functions {
            let benchmark = try Benchmark(
                of: function, model: await compile(function), on: device, postProcessing: postProcessing,
                isForeground: { foreground.wasKept }
            )
            let input = function.manifest.input
            for units in computeUnits {
                await begin(BenchmarkStep(input: input, computeUnits: units, index: reports.count, count: count))
                await foreground.arrive()
                foreground.watch()
                reports.append(try await benchmark.measure(units, warmup: warmup, repeats: repeats))
            }
        }
        return reports
    }
}

private func check(_ name: String, _ value: Int, _ allowed: ClosedRange<Int>) throws {
    guard allowed.contains(value) else {
        throw ArgumentError("\(name) is \(value), it must be \(allowed.lowerBound) to \(allowed.upperBound)")
    }
}
