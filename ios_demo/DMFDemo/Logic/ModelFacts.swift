import DMFClassifier
import Foundation

/// Something worth telling; `isBad` where a person must not miss it.
struct Fact: Equatable, Identifiable, Sendable {
    let title: String
    let value: String
    var isBad = false

    var id: String { title }
}

/// What there is to tell of a package on this device.
func facts(of package: ModelPackage, _ verdicts: Verdicts, _ device: DeviceDescription) -> [Fact] {
    let manifest = package.manifest
    let input = manifest.input
    return [
        Fact(title: "Model", value: "\(manifest.model.variant), \(manifest.model.parameters) parameters"),
        Fact(
            title: "Weights", value: words(manifest.checkpoint), isBad: manifest.checkpoint.source != Checkpoint.ofFile
        ),
        Fact(title: "Artifact", value: artifact(package)),
        Fact(
            title: "Input and output",
            value: "\(words(input)) \(words(manifest.detection)) It tells \(manifest.classes) classes apart."
        ),
        Fact(title: "Checked when it was exported", value: words(manifest.parity), isBad: !manifest.parity.passed),
        selfTests(package, verdicts),
        Fact(
            title: "Unchecked",
            value: manifest.unchecked.isEmpty ? "Nothing is listed" : manifest.unchecked.joined(separator: "\n")
        ),
        Fact(title: "Toolkit’s commit", value: words(manifest.source)),
        Fact(
            title: "This device",
            value: "\(device.model), \(device.cpu), \(device.logicalCores) cores\n\(device.os)\n\(device.app)"
        )
    ]
}

extension Checkpoint {
    static let ofFile = "file"
    static let random = "seeded"

    var isRandom: Bool { source == Checkpoint.random }
}

let randomWeights = "Random weights: its answers mean nothing."

private func words(_ checkpoint: Checkpoint) -> String {
    if checkpoint.isRandom { return randomWeights }
    if checkpoint.source == Checkpoint.ofFile { return "From the checkpoint \(checkpoint.pathName ?? "")" }
    return "Of a model that was in memory when it was exported; nobody wrote down which."
}

private func artifact(_ package: ModelPackage) -> String {
    let manifest = package.manifest
    let megabytes = Double(manifest.files.map(\.sizeBytes).reduce(0, +)) / 1e6
    return "\(manifest.artifact): \(manifest.precision), made for \(manifest.target)\n"
        + "\(String(format: "%.1f", megabytes)) MB with its golden vectors and labels\n"
        + "SHA-256 \(package.artifactSHA256)"
}

private func words(_ input: InputSpec) -> String {
    switch input.fit {
    case .crop(let resize):
        return "The picture’s shorter side becomes \(resize) px (\(input.interpolation.rawValue)), of which "
            + "the model sees the \(resolution(input)) in the middle."
    case .pad:
        return "The picture becomes as large as fits into \(resolution(input)) (\(input.interpolation.rawValue)), "
            + "all of which the model sees."
    }
}

private func words(_ detection: Detection?) -> String {
    guard let detection else { return "It answers with how probable each class is." }
    let who = detection.form == .dense ? "this app" : "the model itself"
    return "It answers with at most \(detection.maxDetections) objects that are more than "
        + "\(figure(detection.scoreThreshold)) sure; \(who) chooses among overlapping ones."
}

private func words(_ parity: Parity) -> String {
    let outputs = parity.outputs.map {
        "\($0.name): the largest error is \(figure($0.maxAbsError)), \(figure($0.budgetMaxAbsError)) is allowed"
    }
    let objects = parity.detections.map { detections in
        "objects: \(detections.matched) of \(detections.found) found are right, \(detections.decided) must be found; "
            + "a score is off by at most \(figure(detections.maxScoreError ?? 0))"
    }
    let verdict = parity.passed ? "Passed" : "Failed: its answers can’t be trusted."
    return (["Against: \(parity.oracle)"] + outputs + [objects, verdict].compactMap { $0 }).joined(separator: "\n")
}

private func selfTests(_ package: ModelPackage, _ verdicts: Verdicts) -> Fact {
    let title = "Self-tests on this device"
    guard package.golden != nil else { return Fact(title: title, value: words(nil as Verdict?), isBad: true) }
    let found = ComputeUnits.allCases.map { ($0, verdicts.find(package.artifactSHA256, $0)) }
    let lines = found.map { units, verdict in
        "\(words(units)): \(verdict.map { words($0) } ?? "not tested yet; choose it on the first screen")"
    }
    return Fact(title: title, value: lines.joined(separator: "\n"), isBad: found.contains { $0.1?.passed == false })
}

private func words(_ source: Source) -> String {
    guard let commit = source.commit else { return "Unknown" }
    return source.dirty == true ? "\(commit), with changes" : commit
}
