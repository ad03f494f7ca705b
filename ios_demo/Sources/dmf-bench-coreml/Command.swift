import DMFClassifier
import Foundation

/// The command, which ends with an exit code; `output` and `complain` get lines.
struct Command {
    /// What runs packages here.
    struct Runtime {
        let device: any MeasuredDevice
        let compile: (ModelPackage) async throws -> any OpenableModel
    }

    enum ExitCode {
        static let measured: Int32 = 0
        static let wrongArguments: Int32 = 2
        static let runtimeFailed: Int32 = 5
    }

    static let name = "dmf-bench-coreml"

    /// nil where there is none.
    let runtime: Runtime?
    let output: (String) -> Void
    let complain: (String) -> Void

    func run(_ words: [String]) async -> Int32 {
        do {
            try await measure(Arguments(words))
            return ExitCode.measured
        } catch {
            complain("\(Command.name): error: \(error.oneLine)")
            return error is UsageError || error is PackageError ? ExitCode.wrongArguments : ExitCode.runtimeFailed
        }
    }

    private func measure(_ arguments: Arguments) async throws {
        if arguments.help {
            output(Arguments.usage)
            return
        }
        guard let runtime else { throw PredictorError("Core ML runs on Apple devices, this is \(system)") }
        let file = try arguments.json.flatMap { $0 == "-" ? nil : try writable($0) }
        let package = try ModelPackage(contentsOf: URL(fileURLWithPath: arguments.package))
        var reports: [LatencyReport] = []
        var problems: [String] = []
        for function in try package.functions(named: arguments.function) {
            let model = try await runtime.compile(function)
            let benchmark = try Benchmark(
                of: function, model: model, on: runtime.device, postProcessing: arguments.postProcessing
            ) { true }
            for units in arguments.computeUnits {
                do {
                    reports.append(
                        try await benchmark.measure(units, warmup: arguments.warmup, repeats: arguments.repeats)
                    )
                } catch {
                    problems.append("\(function.manifest.name) on \(units.rawValue): \(error.oneLine)")
                }
            }
        }
        if !reports.isEmpty {
            let document = try latencyResults(reports)
            output(arguments.json == "-" ? String(bytes: document, encoding: .utf8) ?? "" : table(reports))
            if let file { try write(document, to: file) }
        }
        guard problems.isEmpty else { throw PredictorError(problems.joined(separator: "; ")) }
    }
}

private let system: String = {
    #if os(Linux)
    "Linux"
    #else
    ProcessInfo.processInfo.operatingSystemVersionString
    #endif
}()

/// UsageError: nothing can be written there, which is better known before anything is measured.
private func writable(_ path: String) throws -> URL {
    let file = URL(fileURLWithPath: path)
    let folder = file.deletingLastPathComponent().path
    var isFolder: ObjCBool = false
    guard FileManager.default.fileExists(atPath: folder, isDirectory: &isFolder), isFolder.boolValue else {
        throw UsageError(message: "--json: \(folder): no such folder; make it, or give another FILE")
    }
    if FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), isFolder.boolValue {
        throw UsageError(message: "--json: \(path): is a folder; give a FILE")
    }
    return file
}

private func write(_ document: Data, to file: URL) throws {
    do {
        try document.write(to: file, options: .atomic)
    } catch {
        throw UsageError(message: "--json: \(file.path): cannot be written: \(error.oneLine)")
    }
}

/// The reports as aligned columns, and below them what makes some invalid.
private func table(_ reports: [LatencyReport]) -> String {
    let header = ["package", "on", "runtime", "p50 ms", "p90 ms", "p99 ms", "load ms", "peak MiB"]
    let rows = [header] + reports.map { report in
        let times = [report.p50Ms, report.p90Ms, report.p99Ms, report.coldLoadMs]
        let peak = Double(report.peakMemoryBytes) / 0x1p20
        return [report.manifest.name, place(report), report.runtime.name + " " + report.runtime.version]
            + times.map { String(format: "%.3f", $0) } + [String(format: "%.0f", peak)]
    }
    let widths = header.indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    let lines = rows.map { row in
        zip(row, widths).enumerated().map { column, cell in
            let padding = String(repeating: " ", count: cell.1 - cell.0.count)
            return column < 3 ? cell.0 + padding : padding + cell.0
        }.joined(separator: "  ")
    }
    let notes = reports.flatMap { report in
        report.invalidBecause.map { "not valid: \(report.manifest.name) \(place(report)): \($0.rawValue)" }
    }
    return (lines + notes).joined(separator: "\n")
}

private func place(_ report: LatencyReport) -> String {
    "\(report.device.model) \(report.runtime.computeUnits.rawValue)"
}
