import CoreGraphics
import DMFClassifier
import SwiftUI

/// Where pictures come from.
enum PictureSource: String, CaseIterable, Identifiable {
    case camera = "Camera"
    case photo = "Photo"
    case drawing = "Drawing"

    var id: PictureSource { self }
}

/// What came of a `Selection`.
enum Opening {
    case nothing
    case opening(ComputeUnits)
    case refused(String)
    case ready(OpenedPackage)
}

/// Opens the chosen package, and gives it one picture after the other.
@MainActor
final class ClassifyModel: ObservableObject {
    @Published var source = PictureSource.camera
    @Published private(set) var opening = Opening.nothing
    @Published private(set) var picture: CGImage?
    @Published private(set) var answer: Answer?
    @Published private(set) var problem: String?

    private let classifier: Classifier

    init(_ classifier: Classifier) {
        self.classifier = classifier
    }

    var opened: OpenedPackage? {
        if case .ready(let opened) = opening { opened } else { nil }
    }

    var input: InputSpec? { opened?.package.manifest.input }

    /// Opens what `selection` says; nil closes what is open.
    func open(_ selection: Selection?) async {
        forget()
        guard let selection else {
            opening = .nothing
            await classifier.close()
            return
        }
        opening = .opening(selection.computeUnits)
        let outcome: Opening
        do {
            outcome = .ready(try await classifier.open(selection))
        } catch {
            outcome = .refused(error.oneLine)
        }
        if !Task.isCancelled { opening = outcome } // else another is being opened
    }

    /// Classifies what the camera sees, the newest frame each time, until the task is cancelled.
    func watchCamera() async {
        guard let input else { return }
        let feed = CameraFeed(minSide: input.resize)
        defer { feed.stop() }
        do {
            for try await frame in try await feed.start() {
                await classify(frame)
            }
        } catch {
            fail(error)
        }
    }

    /// Classifies the picture in the file that `load` returns, if it returns one.
    func classify(file load: () async throws -> Data?) async {
        guard let input else { return }
        do {
            guard let data = try await load() else { return }
            await classify(try await Task.detached { try pixels(ofFile: data, resize: input.resize) }.value)
        } catch {
            fail(error)
        }
    }

    /// Classifies a drawing, unless there is nothing in it or a finger is still at it.
    func classify(_ drawing: Drawing) async {
        guard let input, !drawing.strokes.isEmpty, !drawing.isUnfinished else { return }
        do {
            await classify(try drawing.pixels(side: input.resize))
        } catch {
            fail(error)
        }
    }

    private func classify(_ picture: Pixels) async {
        do {
            let answer = try await classifier.classify(picture)
            if Task.isCancelled { return }
            self.picture = image(of: picture)
            self.answer = answer
            problem = nil
        } catch {
            fail(error)
        }
    }

    /// Shows nothing of what was seen so far.
    func forget() {
        picture = nil
        answer = nil
        problem = nil
    }

    private func fail(_ error: any Error) {
        if error is CancellationError || Task.isCancelled { return }
        answer = nil
        problem = error.oneLine
    }
}
