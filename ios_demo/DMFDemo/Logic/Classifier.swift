import DMFClassifier
import Foundation

/// A package, its function, nil being the first, and what it runs on.
struct Selection: Equatable, Sendable {
    var folder: URL
    var function: String?
    var computeUnits: ComputeUnits
}

/// A function that is open; `verdict` is of all that the package has, nil where there are no golden vectors.
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

    /// Opens the function in place of the one that was open.
    ///
    /// Unless that was done before, it and the package's others are tested by their golden vectors.
    /// PackageError, PredictorError: it cannot be used. CancellationError: another was opened meanwhile.
    func open(_ selection: Selection) async throws -> OpenedPackage {
        close()
        let opening = openings
        let package = try ModelPackage(contentsOf: selection.folder)
        let chosen = try package.functions(named: selection.function)[0]
        let known = verdicts.find(package.artifactSHA256, selection.computeUnits)
        let others = package.functions.filter { $0.manifest.input != chosen.manifest.input }
        var results: [SelfTestResult] = []
        var kept: (any Predictor)?
        for function in (known == nil ? others : []) + [chosen] { // no two are open at a time
            let model = try await compile(function)
            guard opening == openings else { throw CancellationError() }
            let predictor = try model.open(on: selection.computeUnits)
            if known == nil, let result = try test(predictor, function) { results.append(result) }
            if function.manifest == chosen.manifest { kept = predictor }
        }
        let verdict = try known ?? remember(results, package, selection.computeUnits)
        opened = kept.map { ($0, chosen.manifest.input) }
        return OpenedPackage(selection: selection, package: chosen, verdict: verdict)
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

    /// nil: it has no golden vectors.
    private func test(_ predictor: any Predictor, _ function: ModelPackage) throws -> SelfTestResult? {
        guard let golden = function.golden else { return nil }
        let input = function.manifest.input
        var result = try SelfTest.run(predictor, golden, input)
        if input.function != nil {
            for index in result.images.indices { result.images[index].image += " at \(resolution(input))" }
        }
        return result
    }

    /// The verdict of all functions; nil where one has no golden vectors.
    private func remember(
        _ results: [SelfTestResult], _ package: ModelPackage, _ computeUnits: ComputeUnits
    ) throws -> Verdict? {
        guard results.count == package.functions.count else { return nil }
        let verdict = Verdict(SelfTestResult(ofFunctions: results))
        try verdicts.remember(verdict, package.artifactSHA256, computeUnits)
        return verdict
    }
}

private func milliseconds(from start: DispatchTime, to end: DispatchTime) -> Double {
    Double(end.uptimeNanoseconds - start.uptimeNanoseconds) / 1e6
}
