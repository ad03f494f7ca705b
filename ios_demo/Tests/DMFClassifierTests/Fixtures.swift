import Foundation
import XCTest

@testable import DMFClassifier

/// The files of tests/fixtures, which Python makes.
enum Fixtures {
    static let folder = ProcessInfo.processInfo.environment["DMF_FIXTURES"].map { URL(fileURLWithPath: $0) }
        ?? URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("../../../tests/fixtures").standardizedFileURL

    static let packageFolder = folder.appendingPathComponent("package-coreml")

    /// Of two functions.
    static let sizesFolder = folder.appendingPathComponent("package-coreml-sizes")

    /// A detector whose form is dense.
    static let detectorFolder = folder.appendingPathComponent("package-detector-coreml")

    static func openPackage() throws -> ModelPackage {
        try ModelPackage(contentsOf: packageFolder)
    }

    static func manifest(of folder: URL = packageFolder) throws -> JSON {
        .object(try json(folder.appendingPathComponent("manifest.json")))
    }

    static func statistics() throws -> [String: JSON] {
        try json(folder.appendingPathComponent("statistics.json"))
    }

    static func detections() throws -> [String: JSON] {
        try json(folder.appendingPathComponent("detections.json"))
    }

    static func tensors(_ name: String) throws -> SafeTensors {
        try SafeTensors(contentsOf: folder.appendingPathComponent("\(name).safetensors"))
    }

    private static func json(_ file: URL) throws -> [String: JSON] {
        try JSON.object(Data(contentsOf: file), source: file.lastPathComponent)
    }
}

extension JSON {
    /// A field of an object or an element of a list, to be read or replaced; nil where there is none.
    subscript(key: String) -> JSON? {
        get { object?[key] }
        set {
            guard var fields = object else { return }
            fields[key] = newValue
            self = .object(fields)
        }
    }

    subscript(index: Int) -> JSON? {
        get {
            guard let elements = list(of: { $0 }), elements.indices.contains(index) else { return nil }
            return elements[index]
        }
        set {
            guard var elements = list(of: { $0 }) else { return }
            if let newValue { elements[index] = newValue } else { elements.remove(at: index) }
            self = .list(elements)
        }
    }

    init(parsing text: String) throws {
        self = try JSONDecoder().decode(JSON.self, from: Data(text.utf8))
    }
}

/// Pictures, and for each input the float32 that Python makes of each.
struct Images {
    static let names = ["photograph", "wide", "tall", "enlarged", "exact", "noise", "black and white"]

    let specs: [String: InputSpec]
    private let tensors: SafeTensors

    init() throws {
        tensors = try Fixtures.tensors("images")
        let text = try XCTUnwrap(tensors.metadata["specs"])
        specs = try JSON.object(Data(text.utf8), source: "specs").mapValues { spec in
            var manifest = try Fixtures.manifest()
            manifest["inputs"] = .list([spec]) // read as the input of a manifest is
            return try Manifest(json: manifest.data()).input
        }
    }

    func spec(_ name: String) throws -> InputSpec {
        try XCTUnwrap(specs[name])
    }

    func picture(_ name: String) throws -> Pixels {
        let tensor = try tensors.tensor("image/\(name)", .uint8, rank: 3)
        return Pixels(width: tensor.shape[1], height: tensor.shape[0], rgb: Array(tensor.data))
    }

    func input(_ spec: String, _ name: String) throws -> [Float] {
        try tensors.tensor("input/\(spec)/\(name)", .float32, rank: 4).floats
    }
}

/// A safetensors file of `header` and `data`; `headerBytes` is what it says of the header's length.
func safeTensors(_ header: String, _ data: Data, headerBytes: Int64? = nil) -> Data {
    let length = headerBytes ?? Int64(header.utf8.count)
    return withUnsafeBytes(of: length.littleEndian) { Data($0) } + Data(header.utf8) + data
}

func littleEndian(_ value: Double) -> Data {
    withUnsafeBytes(of: value.bitPattern.littleEndian) { Data($0) }
}

/// `work` throws a PackageError with exactly this message.
func assertPackageError<T>(
    _ message: String, file: StaticString = #filePath, line: UInt = #line, _ work: () throws -> T
) {
    assertError(PackageError(message), file: file, line: line, work)
}

/// `work` throws a PredictorError with exactly this message.
func assertPredictorError<T>(
    _ message: String, file: StaticString = #filePath, line: UInt = #line, _ work: () throws -> T
) {
    assertError(PredictorError(message), file: file, line: line, work)
}

private func assertError<T, E: Error & Equatable>(
    _ expected: E, file: StaticString, line: UInt, _ work: () throws -> T
) {
    XCTAssertThrowsError(try work(), file: file, line: line) { error in
        XCTAssertEqual(error as? E, expected, "\(error)", file: file, line: line)
    }
}

/// A classifier's.
extension Golden {
    var logits: [[Double]] { if case .logits(let logits, _) = answers { logits } else { [] } }
    var frozenLogits: [[Double]]? { if case .logits(_, let frozen) = answers { frozen } else { nil } }
}

/// Like XCTAssertThrowsError, of what is async.
func assertThrows<T>(
    file: StaticString = #filePath, line: UInt = #line, _ work: () async throws -> T, _ check: (any Error) -> Void
) async {
    do {
        _ = try await work()
        XCTFail("no error", file: file, line: line)
    } catch {
        check(error)
    }
}

/// A test case with a folder of its own.
class FolderTestCase: XCTestCase {
    private(set) var folder = URL(fileURLWithPath: "/")

    override func setUpWithError() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws {
        try FileManager.default.removeItem(at: folder)
    }

    /// A copy of the package whose files or manifest a test may change; the manifest is written again after it.
    func copyPackage(
        _ original: URL = Fixtures.packageFolder, _ change: (URL, inout JSON) throws -> Void = { _, _ in }
    ) throws -> URL {
        let copy = folder.appendingPathComponent("package")
        try FileManager.default.copyItem(at: original, to: copy)
        var manifest = try Fixtures.manifest(of: original)
        try change(copy, &manifest)
        try manifest.data().write(to: copy.appendingPathComponent("manifest.json"))
        return copy
    }

    /// Neither golden vectors nor labels, only the artifact.
    func copyArtifactAlone() throws -> URL {
        try copyPackage { copy, manifest in
            for name in ["labels.txt", "golden.safetensors"] {
                try FileManager.default.removeItem(at: copy.appendingPathComponent(name))
                manifest["files"]?[0] = nil
            }
            manifest["labels"] = .null
        }
    }
}
