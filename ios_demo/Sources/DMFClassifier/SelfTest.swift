/// How near the answers for one golden image are to the reference: its logits, or the scores of its objects.
///
/// NaN anywhere is an infinite error. `isComplete`: every object that must be found is, and no other one; the error is
/// 1 where that is false.
public struct ImageError: Equatable, Sendable {
    public var image: String
    public var maxAbsError: Double
    public var budgetAbsError: Double
    public var isComplete = true

    public var passed: Bool { isComplete && maxAbsError <= budgetAbsError }

    fileprivate var excess: Double { maxAbsError == 0 ? 0 : maxAbsError / budgetAbsError }
}

/// What a predictor answered for the golden images.
///
/// `frozenRouting`: the answers are those of a network that routes every image like the first one.
public struct SelfTestResult: Equatable, Sendable {
    public var images: [ImageError]
    public var frozenRouting: Bool

    /// The image whose error is largest beside its budget.
    public var worst: ImageError {
        images.dropFirst().reduce(images[0]) { $1.excess > $0.excess ? $1 : $0 }
    }

    public var passed: Bool { !frozenRouting && images.allSatisfy(\.passed) }
}

extension SelfTestResult {
    /// Of an artifact whose functions, of which there is at least one, answered so: each must be right.
    public init(ofFunctions results: [SelfTestResult]) {
        self.init(images: results.flatMap(\.images), frozenRouting: results.contains(where: \.frozenRouting))
    }
}

public enum SelfTest {
    /// Runs the golden images through `predictor`. PredictorError: it refuses one, or answers in another shape.
    public static func run(
        _ predictor: any Predictor, _ golden: Golden, _ manifest: Manifest
    ) throws -> SelfTestResult {
        func answers(_ index: Int) throws -> [Tensor] {
            try manifest.read(predictor.outputs(for: Preprocess.input(of: golden.images[index], manifest.input)))
        }
        func error(_ index: Int, _ maxAbsError: Double, isComplete: Bool = true) -> ImageError {
            ImageError(
                image: golden.names[index], maxAbsError: maxAbsError, budgetAbsError: golden.budgets[index],
                isComplete: isComplete
            )
        }
        switch golden.answers {
        case .logits(let logits, let frozen):
            let found = try golden.images.indices.map { try answers($0)[0].values.map(Double.init) }
            let errors = found.indices.map { error($0, maxAbsDifference(found[$0], logits[$0])) }
            let isFrozen = frozen.map { routingIsFrozen(found, logits, frozen: $0, golden.budgets) } ?? false
            return SelfTestResult(images: errors, frozenRouting: isFrozen)
        case .objects(let objects, let iou):
            let errors = try golden.images.indices.map { index in
                guard case .objects(let found) = manifest.findings(of: try answers(index)) else {
                    return error(index, .infinity, isComplete: false)
                }
                let match = Match(found, objects[index], iou: iou)
                return error(index, match.scoreError, isComplete: match.isComplete)
            }
            return SelfTestResult(images: errors, frozenRouting: false)
        }
    }
}

/// Whether there are images that frozen routing would answer differently, and each of them was answered so.
private func routingIsFrozen(
    _ answers: [[Double]], _ logits: [[Double]], frozen: [[Double]], _ budgets: [Double]
) -> Bool {
    let telling = answers.indices.filter { maxAbsDifference(frozen[$0], logits[$0]) > budgets[$0] }
    return !telling.isEmpty && telling.allSatisfy { maxAbsDifference(answers[$0], frozen[$0]) <= budgets[$0] }
}

private func maxAbsDifference(_ values: [Double], _ expected: [Double]) -> Double {
    zip(values, expected).reduce(0) { largest, pair in
        let difference = abs(pair.0 - pair.1)
        return max(largest, difference.isNaN ? .infinity : difference)
    }
}
