import Foundation

/// The results that a host fetches from `folder`: one file a run, whole or not at all.
struct Runs {
    let folder: URL

    /// Removes the result of an earlier run of this name, which would be taken for the new one's.
    func forget(_ run: String) {
        try? FileManager.default.removeItem(at: file(run))
    }

    /// Removes every result.
    func forgetAll() {
        try? FileManager.default.removeItem(at: folder)
    }

    /// Throws Foundation's errors where it cannot be written.
    func write(_ document: Data, of run: String) throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let part = folder.appendingPathComponent("\(run).json.part")
        try document.write(to: part)
        forget(run)
        try FileManager.default.moveItem(at: part, to: file(run))
    }

    private func file(_ run: String) -> URL {
        folder.appendingPathComponent("\(run).json")
    }
}

/// What a run that failed leaves: `{"error": "one line"}`.
func errorDocument(_ problem: String) throws -> Data {
    try JSONEncoder().encode(["error": problem])
}
