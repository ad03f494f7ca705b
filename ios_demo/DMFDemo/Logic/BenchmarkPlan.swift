import DMFClassifier
import Foundation

/// Makes a package's artifact ready to be opened; on Apple's systems `CompiledModel.compile`.
typealias Compile = @Sendable (ModelPackage) async throws -> any OpenableModel

/// What is to be measured.
struct BenchmarkPlan: Equatable, Sendable {
    static let warmupRange = 0...10_000
    static let repeatsRange = 1...10_000

    let folder: URL
    let computeUnits: [ComputeUnits]
    let warmup: Int
    let repeats: Int

    /// ArgumentError: a number is out of range, or there is nothing to measure.
    init(folder: URL, computeUnits: [ComputeUnits], warmup: Int, repeats: Int) throws {
        guard !computeUnits.isEmpty else { throw ArgumentError("no compute units are given; give at least one") }
        guard Set(computeUnits).count == computeUnits.count else {
            throw ArgumentError("compute units are given twice; give them once")
        }
        try check("warmup", warmup, BenchmarkPlan.warmupRange)
        try check("repeats", repeats, BenchmarkPlan.repeatsRange)
        self.folder = folder
        self.computeUnits = computeUnits
        self.warmup = warmup
        self.repeats = repeats
    }

    /// Measures each of the compute units in turn; `begin` is told of each before, from 0.
    ///
    /// PackageError, PredictorError: the first of them that fails. CancellationError: the task was cancelled.
    func measure(
        on device: any MeasuredDevice, compile: Compile, foreground: Foreground, begin: (Int) async -> Void
    ) async throws -> [LatencyReport] {
        let package = try ModelPackage(contentsOf: folder)
        let benchmark = try Benchmark(
            of: package, model: await compile(package), on: device, isForeground: { foreground.wasKept }
        )
        var reports: [LatencyReport] = []
        for (index, units) in computeUnits.enumerated() {
            await begin(index)
            await foreground.arrive()
            foreground.watch()
            reports.append(try await benchmark.measure(units, warmup: warmup, repeats: repeats))
        }
        return reports
    }
}

private func check(_ name: String, _ value: Int, _ allowed: ClosedRange<Int>) throws {
    guard allowed.contains(value) else {
        throw ArgumentError("\(name) is \(value), it must be \(allowed.lowerBound) to \(allowed.upperBound)")
    }
}
