import Foundation

/// What an artifact must answer for a few images, cropped and not yet normalised.
///
/// By image: `logits` of the float64 reference, (classes) each; `budgets`, by how much a logit may differ from them;
/// `names`. `frozenLogits` are those of a network that routes every image like the first one; nil where unknown.
public struct Golden: Equatable, Sendable {
    /// The file of the only function's, or of the first of several.
    static let fileName = "golden.safetensors"

    public var images: [Pixels]
    public var logits: [[Double]]
    public var budgets: [Double]
    public var frozenLogits: [[Double]]?
    public var names: [String]
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
        logits = try reader.rows("logits", shape: [count, manifest.classes])
        budgets = try reader.budgets(count)
        frozenLogits = try reader.tensors.contains("frozen_logits")
            ? reader.rows("frozen_logits", shape: [count, manifest.classes]) : nil
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

    func rows(_ name: String, shape: [Int]) throws -> [[Double]] {
        let tensor = try tensors.tensor(name, .float64, rank: 2)
        try check(name, tensor.shape, allowed: shape)
        let values = tensor.doubles
        guard values.allSatisfy(\.isFinite) else { throw damaged(source, "\(name) are not all finite") }
        return values.split(every: shape[1]).map(Array.init)
    }

    func budgets(_ count: Int) throws -> [Double] {
        let tensor = try tensors.tensor("budgets", .float64, rank: 1)
        try check("budgets", tensor.shape, allowed: [count])
        let budgets = tensor.doubles
        guard budgets.allSatisfy({ $0 >= 0 && $0.isFinite }) else { throw damaged(source, "budgets must be >= 0") }
        return budgets
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
