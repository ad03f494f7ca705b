/// How near the answers for one golden image are to the reference; NaN anywhere is an infinite error.
public struct ImageError: Equatable, Sendable {
    public var image: String
    public var maxAbsError: Double
    public var budgetAbsError: Double

    public var passed: Bool { maxAbsError <= budgetAbsError }

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
    /// Runs the golden images through `predictor`. PredictorError: it refuses one.
    public static func run(_ predictor: any Predictor, _ golden: Golden, _ spec: InputSpec) throws -> SelfTestResult {
        let answers = try golden.images.enumerated().map { index, image in
            let answer = try predictor.logits(for: Preprocess.input(of: image, spec)).map(Double.init)
            let expected = golden.logits[index].count
            guard answer.count == expected else {
                let found = "the artifact answers \(answer.count) logits"
                throw PredictorError("\(found), the golden vectors have \(expected)")
            }
            return answer
        }
        let errors = answers.indices.map { index in
            ImageError(
                image: golden.names[index],
                maxAbsError: maxAbsDifference(answers[index], golden.logits[index]),
                budgetAbsError: golden.budgets[index]
            )
        }
        return SelfTestResult(images: errors, frozenRouting: routingIsFrozen(answers, golden))
    }
}

/// Whether there are images that frozen routing would answer differently, and each of them was answered so.
private func routingIsFrozen(_ answers: [[Double]], _ golden: Golden) -> Bool {
    guard let frozen = golden.frozenLogits else { return false }
    let telling = answers.indices.filter {
        maxAbsDifference(frozen[$0], golden.logits[$0]) > golden.budgets[$0]
    }
    return !telling.isEmpty
        && telling.allSatisfy { maxAbsDifference(answers[$0], frozen[$0]) <= golden.budgets[$0] }
}

private func maxAbsDifference(_ values: [Double], _ expected: [Double]) -> Double {
    zip(values, expected).reduce(0) { largest, pair in
        let difference = abs(pair.0 - pair.1)
        return max(largest, difference.isNaN ? .infinity : difference)
    }
}
