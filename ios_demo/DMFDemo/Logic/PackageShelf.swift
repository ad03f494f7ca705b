import DMFClassifier
import Foundation

/// A package in this app; `manifest` is nil for a damaged one, which stays in the list so that it can be removed.
struct ShelvedPackage: Identifiable, Equatable, Sendable {
    let folder: URL
    let manifest: Manifest?
    let isEmbedded: Bool

    var id: URL { folder }

    var title: String {
        manifest.map { "\($0.name) (\($0.precision), \($0.target))" } ?? "\(folder.lastPathComponent) (damaged)"
    }
}

/// The packages that the app carries, and those that a person or a host put into its documents.
struct PackageShelf: Sendable {
    /// nil: this build carries none.
    let embedded: URL?
    let added: URL

    /// The added ones first: the newest things are.
    func list() -> [ShelvedPackage] {
        shelved(in: added, isEmbedded: false) + (embedded.map { shelved(in: $0, isEmbedded: true) } ?? [])
    }

    /// The folder of the package with this name. PackageError: there is none.
    func find(_ name: String) throws -> URL {
        let all = list()
        guard let found = all.first(where: { $0.folder.lastPathComponent == name || $0.manifest?.name == name }) else {
            let names = all.map(\.folder.lastPathComponent).joined(separator: ", ")
            throw PackageError("no package \"\(name)\" in this app, only: \(names.isEmpty ? "none" : names)")
        }
        return found.folder
    }

    /// Copies a package, which appears once it is as its manifest lists it, and returns its folder.
    ///
    /// PackageError: it cannot be used, or one of its name is there.
    func add(_ folder: URL) throws -> URL {
        let files = FileManager.default
        let manifest = try ModelPackage(contentsOf: folder).manifest
        let target = added.appendingPathComponent(fileName(manifest.name))
        guard !files.fileExists(atPath: target.path) else {
            throw PackageError("a package named \(manifest.name) is in this app already; remove it first")
        }
        let copy = added.appendingPathComponent(PackageShelf.incoming)
        try? files.removeItem(at: copy) // of a copy that was interrupted
        defer { try? files.removeItem(at: copy) }
        do {
            try files.createDirectory(at: added, withIntermediateDirectories: true)
            try files.copyItem(at: folder, to: copy)
            _ = try ModelPackage(contentsOf: copy)
            try files.moveItem(at: copy, to: target)
        } catch let error as PackageError {
            throw error
        } catch {
            throw PackageError("\(manifest.name) cannot be copied: \(error.oneLine)")
        }
        return target
    }

    /// Removes what a host put there, by its folders' names; what is not there, or a part of the app, is left alone.
    func removeAdded(_ names: [String]) {
        let added = shelved(in: added, isEmbedded: false).filter { names.contains($0.folder.lastPathComponent) }
        for package in added { try? remove(package) } // the next listing shows what could not be removed
    }

    /// PackageError: it is a part of the app, or cannot be removed.
    func remove(_ package: ShelvedPackage) throws {
        guard !package.isEmbedded else {
            throw PackageError("\(package.title) is a part of this app; build the app without it")
        }
        do {
            try FileManager.default.removeItem(at: package.folder)
        } catch {
            throw PackageError("\(package.title) cannot be removed: \(error.oneLine)")
        }
    }

    private static let incoming = ".incoming"

    private func shelved(in folder: URL, isEmbedded: Bool) -> [ShelvedPackage] {
        let found = try? FileManager.default.contentsOfDirectory(
            at: folder, includingPropertiesForKeys: nil, options: .skipsHiddenFiles
        )
        return (found ?? []).filter(\.isFolder).sorted { $0.lastPathComponent < $1.lastPathComponent }.map { package in
            let json = try? Data(contentsOf: package.appendingPathComponent(Manifest.fileName))
            return ShelvedPackage(
                folder: package, manifest: json.flatMap { try? Manifest(json: $0) }, isEmbedded: isEmbedded
            )
        }
    }
}

private func fileName(_ name: String) -> String {
    let allowed = CharacterSet.alphanumerics.union(CharacterSet(charactersIn: "_.-"))
    let safe = name.unicodeScalars.map { allowed.contains($0) ? String($0) : "_" }.joined()
    return safe.hasPrefix(".") ? "_" + safe.dropFirst() : safe
}

extension URL {
    fileprivate var isFolder: Bool {
        var isFolder: ObjCBool = false
        return FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) && isFolder.boolValue
    }
}
