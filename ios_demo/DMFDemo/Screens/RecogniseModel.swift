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
final class RecogniseModel: ObservableObject {
    @Published var source = PictureSource.camera
    @Published private(set) var opening = Opening.nothing
    @Published private(set) var picture: CGImage?
    @Published private(set) var answer: Answer?
    @Published private(set) var problem: String?

    private let recogniser: Recogniser

    init(_ recogniser: Recogniser) {
        self.recogniser = recogniser
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
            await recogniser.close()
            return
        }
        opening = .opening(selection.computeUnits)
        let outcome: Opening
        do {
            outcome = .ready(try await recogniser.open(selection))
        } catch {
            outcome = .refused(error.oneLine)
        }
        if !Task.isCancelled { opening = outcome } // else another is being opened
    }

    /// Recognises what the camera sees, the newest frame each time, until the task is cancelled.
    func watchCamera() async {
        guard let input else { return }
        let feed = CameraFeed(for: input)
        defer { feed.stop() }
        do {
            for try await frame in try await feed.start() {
                await recognise(frame)
            }
        } catch {
            fail(error)
        }
    }

    /// Recognises the picture in the file that `load` returns, if it returns one.
    func recognise(file load: () async throws -> Data?) async {
        guard let input else { return }
        do {
            guard let data = try await load() else { return }
            await recognise(try await Task.detached { try pixels(ofFile: data, for: input) }.value)
        } catch {
            fail(error)
        }
    }

    /// Recognises a drawing, unless a finger is still at it; of an empty one nothing is said.
    func recognise(_ drawing: Drawing) async {
        guard let input, !drawing.isUnfinished else { return }
        guard !drawing.strokes.isEmpty else { return forget() }
        do {
            await recognise(try drawing.pixels(side: input.resized(width: 1, height: 1).width))
        } catch {
            fail(error)
        }
    }

    private func recognise(_ picture: Pixels) async {
        do {
            let answer = try await recogniser.recognise(picture)
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
