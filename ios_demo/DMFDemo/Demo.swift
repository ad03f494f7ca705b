import DMFClassifier
import DMFCoreML
import Foundation

/// What all screens share.
@MainActor
final class Demo {
    let shelf: PackageShelf
    let verdicts: Verdicts
    let runs: Runs
    let device: Device
    let recogniser: Recogniser
    let foreground = Foreground()

    init() {
        let documents = URL.documentsDirectory
        let version = Bundle.main.object(forInfoDictionaryKey: "CFBundleShortVersionString") as? String ?? "0"
        let device = Device(app: "\(Bundle.main.bundleIdentifier ?? "unknown") \(version)")
        let verdicts = Verdicts(
            file: URL.applicationSupportDirectory.appending(path: "verdicts.json"),
            version: "\(version) \(device.description.os)"
        )
        self.device = device
        self.verdicts = verdicts
        shelf = PackageShelf(
            embedded: Bundle.main.url(forResource: "Packages", withExtension: nil),
            added: documents.appending(path: "packages")
        )
        runs = Runs(folder: documents.appending(path: "runs"))
        recogniser = Recogniser(verdicts: verdicts, compile: Demo.compile)
    }

    static let compile: Compile = { try await CompiledModel.compile($0) }
}
