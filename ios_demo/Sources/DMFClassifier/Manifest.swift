import Foundation

public enum Layout: String, CaseIterable, Sendable {
    case nchw = "NCHW"
    case nhwc = "NHWC"
}

public enum Interpolation: String, CaseIterable, Sendable {
    case bicubic
    case bilinear
}

/// What the artifact takes: an array of numbers, or a picture.
public enum InputType: String, CaseIterable, Sendable {
    case float32
    case image
}

/// How a picture gets the size of the input.
public enum Fit: Equatable, Sendable {
    /// Its shorter side becomes `resize` px, and its middle is cut out.
    case crop(resize: Int)
    /// All of it is as large as fits, in the top left corner; the rest has the mean colour.
    case pad
}

/// How a picture becomes the model's input; `shape` has -1 for a dynamic batch, `mean` and `std` are of 0..1.
///
/// `function` is the artifact's that takes the input; nil where it has but one.
public struct InputSpec: Equatable, Sendable {
    public var name: String
    public var function: String?
    public var shape: [Int]
    public var layout: Layout
    public var dtype: InputType
    public var mean: [Double]
    public var std: [Double]
    public var normalisationInGraph: Bool
    public var fit: Fit
    public var cropHeight: Int
    public var cropWidth: Int
    public var interpolation: Interpolation
}

/// One output of the model; `shape` has -1 for a dynamic batch.
public struct OutputSpec: Equatable, Sendable {
    public var name: String
    public var shape: [Int]
    public var dtype: String
}

/// The network and its number of parameters.
public struct ModelInfo: Equatable, Sendable {
    public var variant: String
    public var parameters: Int
}

/// Where the weights came from: `source` is file, seeded or memory.
public struct Checkpoint: Equatable, Sendable {
    public var source: String
    public var pathName: String?
    public var seed: Int?
}

/// The toolkit's git commit and whether its working tree was dirty; nil where there was no repository.
public struct Source: Equatable, Sendable {
    public var commit: String?
    public var dirty: Bool?
}

/// How near an output came to the oracle when the package was made, and how near it had to.
public struct OutputParity: Equatable, Sendable {
    public var name: String
    public var maxAbsError: Double
    public var budgetMaxAbsError: Double
}

/// How the objects that a detector found when the package was made match the oracle's.
///
/// Those `decided` it must find; `matched` of those it `found` are right. `maxScoreError` is nil where there are none.
public struct DetectionParity: Equatable, Sendable {
    public var decided: Int
    public var found: Int
    public var matched: Int
    public var maxScoreError: Double?
}

/// The proof that the exporter made; `detections` is nil for a classifier.
public struct Parity: Equatable, Sendable {
    public var oracle: String
    public var passed: Bool
    public var outputs: [OutputParity]
    public var detections: DetectionParity?
}

/// One function of an artifact that has several, which share their weights: the same network at another size.
///
/// `golden` is the file of its golden vectors.
public struct Function: Equatable, Sendable {
    public var input: InputSpec
    public var parity: Parity
    public var golden: String?
}

public enum Role: String, CaseIterable, Sendable {
    case artifact
    case golden
    case labels
}

/// One file of the package; `path` is relative to it, with forward slashes.
public struct PackageFile: Equatable, Sendable {
    public var path: String
    public var role: Role
    public var sha256: String
    public var sizeBytes: Int
}

/// `manifest.json`, as far as an app needs it; its format is Core ML's.
public struct Manifest: Equatable, Sendable {
    public static let fileName = "manifest.json"
    public static let format = "coreml"

    public var name: String
    public var artifact: String
    public var target: String
    public var precision: String
    public var model: ModelInfo
    public var checkpoint: Checkpoint
    public var source: Source
    public var input: InputSpec
    public var outputs: [OutputSpec]
    /// nil for a classifier.
    public var detection: Detection?
    public var labels: String?
    public var parity: Parity
    /// The file of the golden vectors; nil where there is none.
    public var golden: String?
    /// Of an artifact of several functions, all but the first, which the rest of the manifest describes; else empty.
    public var functions: [Function]
    public var unchecked: [String]
    public var files: [PackageFile]

    /// Of each function, as if it were the only one, its name behind the package's: `a:b`; itself where there is one.
    public var alone: [Manifest] {
        guard !functions.isEmpty else { return [self] }
        return ([Function(input: input, parity: parity, golden: golden)] + functions).map { function in
            var alone = self
            alone.name += ":\(function.input.function ?? "")"
            alone.input = function.input
            alone.parity = function.parity
            alone.golden = function.golden
            alone.functions = []
            return alone
        }
    }

    /// The outputs that are read: a classifier's logits, or those of a detector's form.
    public var answers: [OutputSpec] {
        guard let detection else { return [outputs[0]] }
        return detection.form.outputs.compactMap { name in outputs.first { $0.name == name } }
    }

    /// Number of classes that it tells apart, the last side of the logits or scores.
    public var classes: Int { answers[0].shape.last ?? 0 }

    /// PackageError: not a manifest that this app knows; it names the JSON path, what is there and what may be.
    public init(json data: Data) throws {
        let json = JSONFields(try JSON.object(data, source: Manifest.fileName), source: Manifest.fileName)
        let version = try json.int("schema_version")
        guard version == schemaVersion else {
            let problem = "is \(version), must be \(schemaVersion); update the app, or export again"
            throw json.error("schema_version", problem)
        }
        try checkFormat(json)
        let files = try json.listOfFields("files").map(PackageFile.init)
        name = try json.text("name")
        artifact = try json.listed("artifact", role: .artifact, among: files)
        target = try json.text("target")
        precision = try json.choice("precision", of: ["fp32", "fp16", "w8", "w8a8"])
        model = try ModelInfo(json.fields("model"))
        checkpoint = try Checkpoint(json.fields("checkpoint"))
        source = try Source(json.fields("source"))
        let first = try json.listOfFields("inputs")[0]
        input = try InputSpec(first)
        detection = try json.fieldsOrNull("detection").map(Detection.init)
        outputs = try readOutputs(json, of: detection?.form)
        labels = try json.textOrNull("labels").map { _ in try json.listed("labels", role: .labels, among: files) }
        parity = try Parity(json.fields("parity"))
        golden = files.first { $0.role == .golden && $0.path == Golden.fileName }?.path
        functions = try json.listOfFields("functions", orNone: true).map { try Function($0, files) }
        unchecked = try json.texts("unchecked")
        self.files = files
        if !functions.isEmpty { _ = try first.choice("function", of: [firstFunction]) }
        if detection != nil { try checkDetector(json, first) }
    }
}

private let schemaVersion = 3
private let firstFunction = "main"

private func checkFormat(_ json: JSONFields) throws {
    let format = try json.text("format")
    if ["onnx", "tflite"].contains(format) {
        throw json.error("format", "is \"\(format)\", which is not for Apple devices; export with --format coreml")
    }
    _ = try json.choice("format", of: [Manifest.format])
}

extension ModelInfo {
    init(_ json: JSONFields) throws {
        self.init(variant: try json.text("variant"), parameters: try json.int("parameters"))
    }
}

extension Checkpoint {
    init(_ json: JSONFields) throws {
        source = try json.choice("source", of: ["file", "seeded", "memory"])
        pathName = try json.textOrNull("path_name")
        seed = try json.intOrNull("seed")
    }
}

extension Source {
    init(_ json: JSONFields) throws {
        self.init(commit: try json.textOrNull("commit"), dirty: try json.flagOrNull("dirty"))
    }
}

extension InputSpec {
    init(_ json: JSONFields) throws {
        let layout: Layout = try json.choice("layout")
        let dtype: InputType = try json.choice("dtype")
        _ = try json.choice("colour_order", of: ["RGB"])
        let crop = try json.ints("crop", "two integers >= 1") { $0.count == 2 && $0.allSatisfy { $0 >= 1 } }
        let sides = layout == .nchw ? [Pixels.channels] + crop : crop + [Pixels.channels]
        let oneImage = "[1 or -1, \(sides.commaSeparated)], the crop in this layout, one image at a time"
        name = try json.text("name")
        function = try json.textOrNull("function")
        shape = try json.ints("shape", oneImage) { $0 == [1] + sides || $0 == [-1] + sides }
        _ = try json.intsOrNull("batches", "null or a list with 1 in it, one image at a time") { $0.contains(1) }
        self.layout = layout
        self.dtype = dtype
        mean = try json.numbers("mean", "three numbers") { $0.count == Pixels.channels }
        std = try json.numbers("std", "three numbers > 0") { $0.count == Pixels.channels && $0.allSatisfy { $0 > 0 } }
        normalisationInGraph = try json.flag("normalisation_in_graph")
        fit = try Fit(json)
        cropHeight = crop[0]
        cropWidth = crop[1]
        interpolation = try json.choice("interpolation")
        if dtype == .image && !normalisationInGraph {
            throw json.error("normalisation_in_graph", "is false, must be true for an image; \(exportAgain)")
        }
    }
}

extension Fit {
    init(_ json: JSONFields) throws {
        if try json.choice("fit", of: ["crop", "pad"]) == "crop" {
            self = .crop(resize: try json.int("resize", min: 1))
        } else {
            _ = try json.field("resize", "null for pad") { $0 == .null ? $0 : nil }
            self = .pad
        }
    }
}

extension OutputSpec {
    init(_ json: JSONFields) throws {
        name = try json.text("name")
        shape = try json.ints("shape", "a list of integers") { _ in true }
        dtype = try json.text("dtype")
    }

    init(logits json: JSONFields) throws {
        name = try json.text("name")
        shape = try json.ints("shape", "[1 or -1, classes], the logits of one image") {
            $0.count == 2 && abs($0[0]) == 1 && $0[1] >= 1
        }
        dtype = try json.choice("dtype", of: ["float32", "float16"])
    }
}

extension Function {
    init(_ json: JSONFields, _ files: [PackageFile]) throws {
        let input = try json.fields("input")
        _ = try input.text("function") // not null
        self.input = try InputSpec(input)
        parity = try Parity(json.fields("parity"))
        golden = try json.listed("golden", role: .golden, among: files)
    }
}

extension Parity {
    init(_ json: JSONFields) throws {
        oracle = try json.text("oracle")
        passed = try json.flag("passed")
        outputs = try json.listOfFields("outputs").map(OutputParity.init)
        detections = try json.fieldsOrNull("detections").map(DetectionParity.init)
    }
}

extension DetectionParity {
    init(_ json: JSONFields) throws {
        decided = try json.int("decided")
        found = try json.int("found")
        matched = try json.int("matched")
        maxScoreError = try json.numberOrNull("max_score_error")
    }
}

extension OutputParity {
    init(_ json: JSONFields) throws {
        name = try json.text("name")
        maxAbsError = try json.number("max_abs_error")
        budgetMaxAbsError = try json.number("budget_max_abs_error")
    }
}

extension PackageFile {
    init(_ json: JSONFields) throws {
        path = try json.field("path", "a path inside the package, with forward slashes") { value in
            value.text.flatMap { isInside($0) ? $0 : nil }
        }
        role = try json.choice("role")
        sha256 = try json.field("sha256", "64 lower-case hexadecimal digits") { value in
            value.text.flatMap { isSHA256($0) ? $0 : nil }
        }
        sizeBytes = try json.int("size_bytes")
    }
}

extension JSONFields {
    /// The path of a file that has this role, or of the folder of several.
    fileprivate func listed(_ name: String, role: Role, among files: [PackageFile]) throws -> String {
        let paths = files.filter { $0.role == role }.map { String($0.path.prefix { $0 != "/" }) }
        let allowed = paths.reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
        return try field(name, "a file or folder with the role \(role): \(allowed.joined(separator: ", "))") { value in
            value.text.flatMap { allowed.contains($0) ? $0 : nil }
        }
    }
}

extension [Int] {
    fileprivate var commaSeparated: String { map(String.init).joined(separator: ", ") }
}

private func isInside(_ path: String) -> Bool {
    let parts = path.split(separator: "/", omittingEmptySubsequences: false)
    return !path.isEmpty && !path.hasPrefix("/") && !path.contains("\\") && !parts.contains("..")
}

private func isSHA256(_ text: String) -> Bool {
    text.utf8.count == 64 && text.utf8.allSatisfy { "0123456789abcdef".utf8.contains($0) }
}
