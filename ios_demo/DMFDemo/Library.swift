import DMFClassifier
import SwiftUI

/// The packages in this app, and the one that was chosen together with its function and what it runs on.
@MainActor
final class Library: ObservableObject {
    @Published private(set) var packages: [ShelvedPackage] = []
    @Published private(set) var isCopying = false
    /// Why a package is not there, in words.
    @Published var problem: String?
    @Published var folder: URL? {
        didSet { function = functions.first?.input.function }
    }
    /// One of `functions`, by its name.
    @Published var function: String?
    @Published var computeUnits = ComputeUnits.all

    private let shelf: PackageShelf

    init(_ shelf: PackageShelf) {
        self.shelf = shelf
    }

    var selection: Selection? {
        folder.map { Selection(folder: $0, function: function, computeUnits: computeUnits) }
    }

    var chosen: ShelvedPackage? { packages.first { $0.folder == folder } }

    /// Those of the chosen package, each as if it were the only one.
    var functions: [Manifest] { chosen?.manifest?.alone ?? [] }

    func refresh() {
        packages = shelf.list()
        if chosen == nil { folder = packages.first?.folder }
    }

    /// Copies a folder that a person chose.
    func add(_ picked: Result<URL, any Error>) async {
        isCopying = true
        defer { isCopying = false }
        do {
            let folder = try picked.get()
            let added = try await copy(folder)
            problem = nil
            refresh()
            self.folder = added
        } catch {
            problem = error.oneLine
        }
    }

    func removeChosen() {
        guard let chosen else { return }
        do {
            try shelf.remove(chosen)
            problem = nil
        } catch {
            problem = error.oneLine
        }
        refresh()
    }

    private func copy(_ folder: URL) async throws -> URL {
        let shelf = shelf
        return try await Task.detached {
            let isGranted = folder.startAccessingSecurityScopedResource()
            defer { if isGranted { folder.stopAccessingSecurityScopedResource() } }
            return try shelf.add(folder)
        }.value
    }
}
