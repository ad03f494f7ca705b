import DMFClassifier
import Foundation

/// A package and what it runs on.
struct Selection: Equatable, Sendable {
    var folder: URL
    var computeUnits: ComputeUnits
}

/// A package that is open; `verdict` is nil where it has no golden vectors.
struct OpenedPackage: Sendable {
    let selection: Selection
    let package: ModelPackage
    let verdict: Verdict?
}

/// The best classes of a picture, and how long it took from the picture to the input and from there to the logits.
struct Answer: Equatable, Sendable {
    let predictions: [Prediction]
    let preprocessingMs: Double
    let inferenceMs: Double
}

/// Holds the opened network and classifies one picture after the other.
actor Classifier {
    private static let shownCount = 5

    private let verdicts: Verdicts
    private let compile: Compile
    private var openings = 0
    private var opened: (predictor: any Predictor, input: InputSpec)?

    init(verdicts: Verdicts, compile: @escaping Compile) {
        self.verdicts = verdicts
        self.compile = compile
    }

    /// Opens the package in place of the one that was open; tests it by its golden vectors, unless it was.
    ///
    /// PackageError, PredictorError: it cannot be used. CancellationError: another was opened meanwhile.
    func open(_ selection: Selection) async throws -> OpenedPackage {
        close()
        let opening = openings
        let package = try ModelPackage(contentsOf: selection.folder)
        let model = try await compile(package)
        guard opening == openings else { throw CancellationError() }
        let predictor = try model.open(on: selection.computeUnits)
        let verdict = try test(predictor, package, selection.computeUnits)
        opened = (predictor, package.manifest.input)
        return OpenedPackage(selection: selection, package: package, verdict: verdict)
    }

    /// Gives the network back.
    func close() {
        openings += 1
        opened = nil
    }

    /// nil: nothing is open. PackageError, PredictorError: the picture is too small, or the runtime refuses it.
    func classify(_ picture: Pixels) throws -> Answer? {
        guard let (predictor, spec) = opened else { return nil }
        let start = DispatchTime.now()
        let input = try Preprocess.toInput(picture, spec)
        let prepared = DispatchTime.now()
        let logits = try predictor.logits(for: input)
        let answered = DispatchTime.now()
        guard logits.allSatisfy(\.isFinite) else {
            throw PredictorError("the network's answer is no number; use other compute units")
        }
        return Answer(
            predictions: topK(softmax(logits), Classifier.shownCount),
            preprocessingMs: milliseconds(from: start, to: prepared),
            inferenceMs: milliseconds(from: prepared, to: answered)
        )
    }

    private func test(
        _ predictor: any Predictor, _ package: ModelPackage, _ computeUnits: ComputeUnits
    ) throws -> Verdict? {
        guard let golden = package.golden else { return nil }
        if let known = verdicts.find(package.artifactSHA256, computeUnits) { return known }
        let verdict = Verdict(try SelfTest.run(predictor, golden, package.manifest.input))
        try verdicts.remember(verdict, package.artifactSHA256, computeUnits)
        return verdict
    }
}

private func milliseconds(from start: DispatchTime, to end: DispatchTime) -> Double {
    Double(end.uptimeNanoseconds - start.uptimeNanoseconds) / 1e6
}
