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

/// Holds the opened network and gives it one picture after the other.
actor Recogniser {
    private let verdicts: Verdicts
    private let compile: Compile
    private var openings = 0
    private var opened: (predictor: any Predictor, manifest: Manifest)?

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
        opened = kept.map { ($0, chosen.manifest) }
        return OpenedPackage(selection: selection, package: chosen, verdict: verdict)
    }

    /// Gives the network back.
    func close() {
        openings += 1
        opened = nil
    }

    /// nil: nothing is open. PackageError, PredictorError: the picture is too small, or the runtime refuses it.
    func recognise(_ picture: Pixels) throws -> Answer? {
        guard let (predictor, manifest) = opened else { return nil }
        let start = DispatchTime.now()
        let input = try Preprocess.toInput(picture, manifest.input)
        let prepared = DispatchTime.now()
        let outputs = try predictor.outputs(for: input)
        let answered = DispatchTime.now()
        let findings = try manifest.findings(in: outputs)
        let found = DispatchTime.now()
        return Answer(
            findings: findings.inPicture(manifest.input, width: picture.width, height: picture.height),
            width: picture.width,
            height: picture.height,
            preprocessingMs: milliseconds(from: start, to: prepared),
            inferenceMs: milliseconds(from: prepared, to: answered),
            postProcessingMs: milliseconds(from: answered, to: found)
        )
    }

    /// nil: it has no golden vectors.
    private func test(_ predictor: any Predictor, _ function: ModelPackage) throws -> SelfTestResult? {
        guard let golden = function.golden else { return nil }
        let input = function.manifest.input
        var result = try SelfTest.run(predictor, golden, function.manifest)
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

extension Findings {
    /// With boxes in px of the picture of `width` x `height` px that became the input.
    fileprivate func inPicture(_ input: InputSpec, width: Int, height: Int) -> Findings {
        guard case .objects(var objects) = self else { return self }
        for index in objects.indices {
            objects[index].box = input.inPicture(objects[index].box, width: width, height: height)
        }
        return .objects(objects)
    }
}

private func milliseconds(from start: DispatchTime, to end: DispatchTime) -> Double {
    Double(end.uptimeNanoseconds - start.uptimeNanoseconds) / 1e6
}
