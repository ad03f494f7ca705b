import DMFClassifier
import SwiftUI

/// Measures by hand; nothing moves meanwhile, an animation would take the GPU and a core.
struct BenchmarkScreen: View {
    @ObservedObject var library: Library
    @ObservedObject var model: BenchmarkModel
    @State private var chosen = Set(ComputeUnits.allCases)
    @State private var warmup = 10
    @State private var repeats = 100
    @State private var postProcessing = false
    @State private var problem: String?

    var body: some View {
        NavigationStack {
            Form {
                if !model.isRunning { form }
                Section {
                    if model.isRunning {
                        Button("Stop", role: .cancel, action: model.cancel)
                    } else {
                        Button("Start", action: start).disabled(library.folder == nil)
                    }
                    progress
                }
                if !model.reports.isEmpty { results }
            }
            .navigationTitle("Benchmark")
            .navigationBarTitleDisplayMode(.inline)
        }
    }

    @ViewBuilder private var form: some View {
        Section("Model package") {
            Picker("Model package", selection: $library.folder) {
                ForEach(library.packages) { package in Text(package.title).tag(URL?.some(package.folder)) }
            }
        }
        Section("Compute units, one after the other") {
            ForEach(ComputeUnits.allCases, id: \.self) { units in Toggle(words(units), isOn: isChosen(units)) }
        }
        Section("Inferences") {
            Stepper("Warm-up: \(warmup)", value: $warmup, in: BenchmarkPlan.warmupRange, step: 5)
            Stepper("Repeats: \(repeats)", value: $repeats, in: BenchmarkPlan.repeatsRange, step: 10)
            if library.chosen?.manifest?.detection?.form == .dense {
                Toggle("Time how objects are chosen, too", isOn: $postProcessing)
            }
        }
    }

    @ViewBuilder private var progress: some View {
        switch model.measurement {
        case .none:
            if let problem { Text(problem).foregroundColor(.red) }
        case .running(let step):
            let what = "\(resolution(step.input)) on \(words(step.computeUnits))"
            Text("Measuring \(what), \(step.index + 1) of \(step.count). Leave the device alone.")
        case .done(let reports, let file):
            if let first = reports.first {
                Text("\(names(reports)): \(first.samplesMs.count) inferences of one picture. Times in ms.")
                if let postProcessing = first.postProcessing { Text(words(postProcessing)) }
            }
            ShareLink("Share JSON", item: file)
        case .failed(let problem):
            Text(problem).foregroundColor(.red)
        }
    }

    @ViewBuilder private var results: some View {
        Section {
            ScrollView(.horizontal) {
                Grid(alignment: .trailing, horizontalSpacing: 16) {
                    GridRow {
                        ForEach(ReportRow.columns, id: \.self) { Text($0).bold() }
                    }
                    ForEach(model.reports.map(ReportRow.init)) { row in
                        GridRow {
                            ForEach(row.cells) { Text($0.text).monospacedDigit() }
                        }
                    }
                }
            }
            ForEach(flags, id: \.self) { Text(words($0)).foregroundColor(.red) }
        }
    }

    private var flags: [Flag] {
        Flag.allCases.filter { flag in model.reports.contains { $0.invalidBecause.contains(flag) } }
    }

    /// Of what was measured, each once.
    private func names(_ reports: [LatencyReport]) -> String {
        let names = reports.map(\.manifest.name).reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
        return names.joined(separator: ", ")
    }

    private func isChosen(_ units: ComputeUnits) -> Binding<Bool> {
        Binding(
            get: { chosen.contains(units) },
            set: { isOn in
                if isOn { chosen.insert(units) } else { chosen.remove(units) }
            }
        )
    }

    private func start() {
        guard let folder = library.folder else { return }
        do {
            let units = ComputeUnits.allCases.filter(chosen.contains)
            let plan = try BenchmarkPlan(
                folder: folder, computeUnits: units, warmup: warmup, repeats: repeats, postProcessing: postProcessing
            )
            model.start(plan)
            problem = nil
        } catch {
            problem = error.oneLine
        }
    }
}
