import Foundation

/// A package folder whose files are what its manifest lists; `labels` and `golden` are nil where it has none.
public struct ModelPackage: Sendable {
    public let folder: URL
    public let manifest: Manifest
    public let labels: [String]?
    public let golden: Golden?
    private let alone: [ModelPackage]

    /// Each function of the artifact, as if it were the only one; the package itself where it has but one.
    public var functions: [ModelPackage] { alone.isEmpty ? [self] : alone }

    /// PackageError: no package, one that was altered, or one that this app cannot use.
    public init(contentsOf folder: URL) throws {
        do {
            try self.init(reading: folder)
        } catch let error as PackageError {
            throw error
        } catch {
            throw PackageError("\(folder.path): cannot be read: \(error.oneLine); copy the package again")
        }
    }

    private init(reading folder: URL) throws {
        let file = folder.appendingPathComponent(Manifest.fileName)
        guard FileManager.default.fileExists(atPath: file.path) else {
            throw PackageError("\(folder.path): no \(Manifest.fileName) in it; give a package that dmf-export wrote")
        }
        let manifest = try Manifest(json: Data(contentsOf: file))
        try checkFiles(folder, manifest)
        let labels = try manifest.labels.map { try readLabels(folder.appendingPathComponent($0), manifest.classes) }
        let alone = try manifest.alone.map { function in
            ModelPackage(folder, function, labels, try readGolden(folder, function), alone: [])
        }
        self.init(folder, manifest, labels, alone[0].golden, alone: manifest.functions.isEmpty ? [] : alone)
    }

    private init(_ folder: URL, _ manifest: Manifest, _ labels: [String]?, _ golden: Golden?, alone: [ModelPackage]) {
        self.folder = folder
        self.manifest = manifest
        self.labels = labels
        self.golden = golden
        self.alone = alone
    }

    /// The function with this name, or all of them. PackageError: there is none such.
    public func functions(named name: String?) throws -> [ModelPackage] {
        guard let name else { return functions }
        guard let found = functions.first(where: { $0.manifest.input.function == name }) else {
            let names = functions.compactMap(\.manifest.input.function)
            let others = names.isEmpty ? "it has but one; name none" : "only: \(names.joined(separator: ", "))"
            throw PackageError("\(manifest.name) has no function \"\(name)\", \(others)")
        }
        return [found]
    }

    /// What the runtime opens: the `.mlpackage` folder.
    public var artifact: URL { folder.appendingPathComponent(manifest.artifact) }

    /// The artifact's hash; of an artifact of several files, that of their `sha256sum` listing.
    public var artifactSHA256: String {
        let members = manifest.files.filter { $0.role == .artifact }
        if members.count == 1 { return members[0].sha256 }
        let listing = members.map { "\($0.sha256)  \($0.path)\n" }.joined()
        return SHA256.hexadecimal(Data(listing.utf8))
    }
}

private let ignoredName = ".DS_Store" // Finder leaves it in every folder it shows

private func checkFiles(_ folder: URL, _ manifest: Manifest) throws {
    let present = try fileNames(folder)
    let listed = Set(manifest.files.map(\.path))
    let changes = manifest.files.filter { !present.contains($0.path) }.map { "\($0.path) is missing" }
        + present.filter { !listed.contains($0) }.sorted().map { "\($0) was added" }
        + (try manifest.files.filter { try present.contains($0.path) && altered(folder, $0) })
            .map { "\($0.path) was altered" }
    guard changes.isEmpty else {
        let list = changes.joined(separator: "; ")
        throw PackageError("\(folder.path): not as its manifest lists it: \(list); export or copy it again")
    }
}

private func fileNames(_ folder: URL) throws -> Set<String> {
    let names = try FileManager.default.subpathsOfDirectory(atPath: folder.path).filter { name in
        var isFolder: ObjCBool = false
        let exists = FileManager.default.fileExists(
            atPath: folder.appendingPathComponent(name).path, isDirectory: &isFolder
        )
        return !(exists && isFolder.boolValue) && (name as NSString).lastPathComponent != ignoredName
    }
    return Set(names).subtracting([Manifest.fileName])
}

private func altered(_ folder: URL, _ listed: PackageFile) throws -> Bool {
    let content = try Data(contentsOf: folder.appendingPathComponent(listed.path), options: .mappedIfSafe)
    return content.count != listed.sizeBytes || SHA256.hexadecimal(content) != listed.sha256
}

private func readGolden(_ folder: URL, _ manifest: Manifest) throws -> Golden? {
    try manifest.golden.map { try Golden(contentsOf: folder.appendingPathComponent($0), manifest) }
}

private func readLabels(_ file: URL, _ classes: Int) throws -> [String] {
    var labels = try String(contentsOf: file, encoding: .utf8)
        .split(omittingEmptySubsequences: false) { $0 == "\n" || $0 == "\r\n" }
        .map(String.init)
    if labels.last == "" { labels.removeLast() }
    guard labels.count == classes else {
        let problem = "has \(labels.count) lines, the model \(classes) classes"
        throw PackageError("\(file.lastPathComponent): \(problem); \(exportAgain)")
    }
    return labels
}
