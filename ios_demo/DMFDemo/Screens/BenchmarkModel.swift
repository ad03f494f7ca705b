import DMFClassifier
import SwiftUI
import UIKit

/// How far a measurement is.
enum Measurement {
    case none
    case running(BenchmarkStep)
    /// `file` holds the document.
    case done([LatencyReport], file: URL)
    case failed(String)
}

/// Measures one plan at a time.
@MainActor
final class BenchmarkModel: ObservableObject {
    @Published private(set) var measurement = Measurement.none
    @Published private var task: Task<Void, Never>?

    private let demo: Demo

    init(_ demo: Demo) {
        self.demo = demo
    }

    var isRunning: Bool { task != nil }

    var reports: [LatencyReport] {
        if case .done(let reports, _) = measurement { reports } else { [] }
    }

    /// Measures for a person.
    func start(_ plan: BenchmarkPlan) {
        run { try await self.measure(plan) }
    }

    func cancel() {
        task?.cancel()
    }

    /// Measures what the app was launched for, and writes the result, or what went wrong, into a file of its name.
    func answer(_ arguments: LaunchArguments) {
        run { [demo] in
            let run = try arguments.run()
            demo.runs.forget(run)
            do {
                let plan = try arguments.plan(find: demo.shelf.find)
                try demo.runs.write(latencyResults(try await self.measure(plan)), of: run)
            } catch {
                try demo.runs.write(errorDocument(error.oneLine), of: run)
                throw error
            }
        }
    }

    private func run(_ work: @escaping @MainActor () async throws -> Void) {
        guard task == nil else { return }
        task = Task {
            UIApplication.shared.isIdleTimerDisabled = true // the screen stays on
            do {
                try await work()
            } catch is CancellationError {
                measurement = .none
            } catch {
                measurement = .failed(error.oneLine)
            }
            UIApplication.shared.isIdleTimerDisabled = false
            task = nil
        }
    }

    @discardableResult
    private func measure(_ plan: BenchmarkPlan) async throws -> [LatencyReport] {
        await demo.recogniser.close() // it would take memory and a part of the Neural Engine
        let reports = try await plan.measure(
            on: demo.device, compile: Demo.compile, foreground: demo.foreground,
            begin: { step in show(.running(step)) }
        )
        let file = FileManager.default.temporaryDirectory.appending(path: "latency.json")
        try latencyResults(reports).write(to: file, options: .atomic)
        show(.done(reports, file: file))
        return reports
    }

    private func show(_ now: Measurement) {
        measurement = now
    }
}
