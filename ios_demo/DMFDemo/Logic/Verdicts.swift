import DMFClassifier
import Foundation

/// What the golden self-test said of an artifact on some compute units; `image` is the worst.
struct Verdict: Codable, Equatable, Sendable {
    var passed: Bool
    var frozenRouting: Bool
    var image: String
    /// nil is an infinite error, which JSON has no number for.
    var maxAbsError: Double?
    var budgetAbsError: Double
    /// False of a detector that finds other objects in the image than it must.
    var isComplete = true
}

extension Verdict {
    init(_ result: SelfTestResult) {
        let worst = result.worst
        self.init(
            passed: result.passed,
            frozenRouting: result.frozenRouting,
            image: worst.image,
            maxAbsError: worst.maxAbsError.isFinite ? worst.maxAbsError : nil,
            budgetAbsError: worst.budgetAbsError,
            isComplete: worst.isComplete
        )
    }
}

/// The verdicts of this version of the app on this version of the system, kept in a file between launches.
struct Verdicts: Sendable {
    let file: URL
    let version: String

    /// nil: the artifact with this hash has not been tested on these compute units.
    func find(_ artifactSHA256: String, _ computeUnits: ComputeUnits) -> Verdict? {
        read()[key(artifactSHA256, computeUnits)]
    }

    /// Throws Foundation's errors where it cannot be written.
    func remember(_ verdict: Verdict, _ artifactSHA256: String, _ computeUnits: ComputeUnits) throws {
        var all = read()
        all[key(artifactSHA256, computeUnits)] = verdict
        try FileManager.default.createDirectory(
            at: file.deletingLastPathComponent(), withIntermediateDirectories: true
        )
        try JSONEncoder().encode(all).write(to: file, options: .atomic)
    }

    private func read() -> [String: Verdict] {
        guard let json = try? Data(contentsOf: file) else { return [:] }
        return (try? JSONDecoder().decode([String: Verdict].self, from: json)) ?? [:]
    }

    private func key(_ artifactSHA256: String, _ computeUnits: ComputeUnits) -> String {
        "\(artifactSHA256) \(computeUnits.rawValue) \(version)"
    }
}
