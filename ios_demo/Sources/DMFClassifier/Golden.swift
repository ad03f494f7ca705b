import Foundation

/// What an artifact must answer for a few images, cropped or padded and not yet normalised.
///
/// By image: its name, the answer of the float64 reference, and the budget: by how much a logit or a score may differ.
public struct Golden: Equatable, Sendable {
    /// The file of the only function's, or of the first of several.
    static let fileName = "golden.safetensors"

    public enum Answers: Equatable, Sendable {
        /// (classes) of each image; `frozen` are those of a network that routes every image like the first one, nil
        /// where they are not known.
        case logits([[Double]], frozen: [[Double]]?)
        /// Those of each image, whose boxes match what is found from `iou` on.
        case objects([[ExpectedObject]], iou: Double)
    }

    public var images: [Pixels]
    public var names: [String]
    public var answers: Answers
    public var budgets: [Double]
    /// Where the artifact holds what its modules compute; empty where that is not known.
    public var modules: [TappedModule]

    /// PackageError: damaged, or not made for the model that `manifest` describes.
    init(contentsOf file: URL, _ manifest: Manifest) throws {
        let reader = GoldenReader(tensors: try SafeTensors(contentsOf: file), source: file.lastPathComponent)
        let pixels = try reader.tensors.tensor("images", .uint8, rank: 4)
        let count = pixels.shape[0]
        let sides = [manifest.input.cropHeight, manifest.input.cropWidth, Pixels.channels]
        try reader.check("images", pixels.shape, allowed: [max(count, 1)] + sides)
        images = reader.images(pixels)
        let isDetectors = manifest.detection != nil
        answers = try isDetectors ? reader.objects(count, manifest.classes) : reader.logits([count, manifest.classes])
        budgets = try reader.budgets(isDetectors ? "score_budgets" : "budgets", count)
        names = try reader.names(count)
        modules = try reader.modules()
    }
}

/// A module by its PyTorch name, and the artifact's tensors that are its output, one after the other.
public struct TappedModule: Equatable, Sendable {
    public var module: String
    public var tensors: [String]

    public init(module: String, tensors: [String]) {
        self.module = module
        self.tensors = tensors
    }
}

private struct GoldenReader {
    let tensors: SafeTensors
    let source: String

    func check(_ name: String, _ found: [Int], allowed: [Int]) throws {
        guard found == allowed else { throw damaged(source, "\(name) are \(found), must be \(allowed)") }
    }

    func images(_ tensor: SafeTensors.Tensor) -> [Pixels] {
        let (height, width) = (tensor.shape[1], tensor.shape[2])
        return tensor.data.split(every: height * width * Pixels.channels).map {
            Pixels(width: width, height: height, rgb: Array($0))
        }
    }

    func logits(_ shape: [Int]) throws -> Golden.Answers {
        func rows(_ name: String) throws -> [[Double]] {
            try numbers(name, shape).split(every: shape[1]).map(Array.init)
        }
        return .logits(try rows("logits"), frozen: try tensors.contains("frozen_logits") ? rows("frozen_logits") : nil)
    }

    /// Rows whose label is -1 are none.
    func objects(_ count: Int, _ classes: Int) throws -> Golden.Answers {
        let labels = try tensors.tensor("object_labels", .int64, rank: 2)
        let shape = [count, labels.shape[1]]
        try check("object_labels", labels.shape, allowed: shape)
        guard labels.ints.allSatisfy((-1..<classes).contains) else {
            throw damaged(source, "object_labels must be -1 to \(classes - 1)")
        }
        let decided = try tensors.tensor("object_decided", .uint8, rank: 2)
        try check("object_decided", decided.shape, allowed: shape)
        let corners = try numbers("object_boxes", shape + [4])
        let scores = try numbers("object_scores", shape)
        let rows = zip(labels.ints, decided.data).enumerated().map { row, meant -> ExpectedObject? in
            let box = Box(
                x1: corners[4 * row], y1: corners[4 * row + 1], x2: corners[4 * row + 2], y2: corners[4 * row + 3]
            )
            let object = DetectedObject(box: box, score: scores[row], label: meant.0)
            return meant.0 < 0 ? nil : ExpectedObject(object, isDecided: meant.1 != 0)
        }
        return .objects((0..<count).map { rows[$0 * shape[1]..<($0 + 1) * shape[1]].compactMap { $0 } }, iou: try iou())
    }

    func budgets(_ name: String, _ count: Int) throws -> [Double] {
        let tensor = try tensors.tensor(name, .float64, rank: 1)
        try check(name, tensor.shape, allowed: [count])
        let budgets = tensor.doubles
        guard budgets.allSatisfy({ $0 >= 0 && $0.isFinite }) else { throw damaged(source, "\(name) must be >= 0") }
        return budgets
    }

    private func numbers(_ name: String, _ shape: [Int]) throws -> [Double] {
        let tensor = try tensors.tensor(name, .float64, rank: shape.count)
        try check(name, tensor.shape, allowed: shape)
        let values = tensor.doubles
        guard values.allSatisfy(\.isFinite) else { throw damaged(source, "\(name) are not all finite") }
        return values
    }

    private func iou() throws -> Double {
        guard let text = tensors.metadata["iou"], let iou = Double(text), (0...1).contains(iou) else {
            throw damaged(source, "its metadata has no iou of 0 to 1")
        }
        return iou
    }

    func names(_ count: Int) throws -> [String] {
        guard let names = try metadata("names", "texts", of: \.text) else {
            throw damaged(source, "its metadata has no names")
        }
        guard names.count == count else { throw damaged(source, "it has \(names.count) names of \(count) images") }
        return names
    }

    func modules() throws -> [TappedModule] {
        try metadata("modules", "modules and their tensors") { json in
            guard let fields = json.object, let module = fields["module"]?.text,
                  let tensors = fields["tensors"]?.list(of: \.text)
            else { return nil }
            return TappedModule(module: module, tensors: tensors)
        } ?? []
    }

    /// A list that the metadata holds as JSON; nil where it does not.
    private func metadata<T>(_ name: String, _ allowed: String, of read: (JSON) -> T?) throws -> [T]? {
        guard let text = tensors.metadata[name] else { return nil }
        guard let list = (try? JSONDecoder().decode(JSON.self, from: Data(text.utf8)))?.list(of: read) else {
            throw damaged(source, "its \(name) are not a list of \(allowed)")
        }
        return list
    }
}

extension RandomAccessCollection {
    fileprivate func split(every length: Int) -> [SubSequence] {
        stride(from: 0, to: count, by: length).map { dropFirst($0).prefix(length) }
    }
}
