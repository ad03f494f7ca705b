import DMFClassifier
import PhotosUI
import SwiftUI

/// Recognises what the camera sees, a photo, or a drawing.
struct RecogniseScreen: View {
    @ObservedObject var library: Library
    @ObservedObject var model: RecogniseModel
    let isShown: Bool
    @State private var photo: PhotosPickerItem?
    @State private var drawing = Drawing()

    var body: some View {
        NavigationStack {
            ScrollView {
                VStack(alignment: .leading, spacing: 12) {
                    PackageBar(library: library)
                    VerdictView(opening: model.opening)
                    Picker("Source of pictures", selection: $model.source) {
                        ForEach(PictureSource.allCases) { source in Text(source.rawValue).tag(source) }
                    }
                    .pickerStyle(.segmented)
                    stage
                    if let problem = model.problem { Text(problem).foregroundColor(.red) }
                    AnswerView(answer: model.answer, opened: model.opened)
                }
                .padding()
            }
            .navigationTitle("Recognise")
            .navigationBarTitleDisplayMode(.inline)
        }
        .task(id: Need(selection: isShown ? library.selection : nil)) {
            await model.open(isShown ? library.selection : nil)
        }
        .task(id: Need(selection: model.opened?.selection, source: model.source, photo: photo, drawing: drawing)) {
            await feed()
        }
        .onChange(of: model.source) { _ in model.forget() }
    }

    /// What a task answers; another one takes its place where this changes.
    private struct Need: Equatable {
        var selection: Selection?
        var source: PictureSource?
        var photo: PhotosPickerItem?
        var drawing: Drawing?
    }

    @ViewBuilder private var stage: some View {
        switch model.source {
        case .camera:
            PictureView(picture: model.picture, overlay: overlay)
        case .photo:
            PhotosPicker("Choose a photo", selection: $photo, matching: .images)
            PictureView(picture: model.picture, overlay: overlay)
        case .drawing:
            DrawingPad(drawing: $drawing, overlay: overlay)
        }
    }

    private var overlay: Overlay {
        Overlay(input: model.input, answer: model.answer, labels: model.opened?.package.labels)
    }

    private func feed() async {
        switch model.source {
        case .camera:
            await model.watchCamera()
        case .photo:
            await model.recognise(file: { try await photo?.loadTransferable(type: Data.self) })
        case .drawing:
            await model.recognise(drawing)
        }
    }
}

/// Which package, on which compute units, and what else can be done with packages.
struct PackageBar: View {
    @ObservedObject var library: Library
    @State private var isImporting = false

    var body: some View {
        VStack(alignment: .leading) {
            HStack {
                Picker("Model package", selection: $library.folder) {
                    ForEach(library.packages) { package in Text(package.title).tag(URL?.some(package.folder)) }
                }
                Spacer()
                Menu {
                    Button("Add a package", action: { isImporting = true })
                    Button("Remove this package", role: .destructive, action: library.removeChosen)
                        .disabled(library.chosen?.isEmbedded ?? true)
                } label: {
                    Label("More", systemImage: "ellipsis.circle").labelStyle(.iconOnly)
                }
            }
            ResolutionPicker(library: library)
            Picker("Compute units", selection: $library.computeUnits) {
                ForEach(ComputeUnits.allCases, id: \.self) { units in Text(words(units)).tag(units) }
            }
            if library.packages.isEmpty {
                Text("No model package is in this app. Add a folder that dmf-export wrote: More, Add a package.")
            }
            if library.isCopying { ProgressView("Copying and checking the package") }
            if let problem = library.problem { Text(problem).foregroundColor(.red) }
        }
        .fileImporter(isPresented: $isImporting, allowedContentTypes: [.folder]) { picked in
            Task { await library.add(picked) }
        }
    }
}

/// Which function of the package, where there are several.
struct ResolutionPicker: View {
    @ObservedObject var library: Library

    var body: some View {
        if library.functions.count > 1 {
            Picker("Resolution", selection: $library.function) {
                ForEach(library.functions, id: \.input.function) { function in
                    Text(resolution(function.input)).tag(function.input.function)
                }
            }
        }
    }
}

/// Whether the network that is open can be trusted.
struct VerdictView: View {
    let opening: Opening

    var body: some View {
        switch opening {
        case .nothing:
            EmptyView()
        case .opening(let units):
            ProgressView("Opening on \(words(units))")
        case .refused(let problem):
            Text(problem).foregroundColor(.red)
        case .ready(let opened):
            Text(words(opened.verdict)).foregroundColor(opened.verdict?.passed == true ? .secondary : .red)
            if opened.package.manifest.checkpoint.isRandom { Text(randomWeights).foregroundColor(.red) }
        }
    }
}

/// The surest classes or objects, and the time it took.
struct AnswerView: View {
    let answer: Answer?
    let opened: OpenedPackage?

    var body: some View {
        if let answer, let opened {
            VStack(alignment: .leading) {
                let rows = answer.rows(opened.package.labels)
                if rows.isEmpty { Text("Nothing found") }
                ForEach(rows) { row in
                    HStack {
                        Text(row.name)
                        Spacer()
                        Text(row.share).monospacedDigit()
                    }
                    .accessibilityElement(children: .combine)
                }
                Text(latency(answer, opened.selection.computeUnits)).font(.footnote).foregroundColor(.secondary)
            }
        }
    }

    private func latency(_ answer: Answer, _ units: ComputeUnits) -> String {
        let inference = String(format: "%.1f", answer.inferenceMs)
        let preprocessing = String(format: "%.1f", answer.preprocessingMs)
        let postProcessing = String(format: "%.1f", answer.postProcessingMs)
        return "\(inference) ms on \(words(units)), \(preprocessing) ms from the picture to the input, "
            + "\(postProcessing) ms from the outputs to what they mean. This is no benchmark."
    }
}
