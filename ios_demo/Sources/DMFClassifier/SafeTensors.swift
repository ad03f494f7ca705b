import Foundation

/// The tensors of a safetensors file and its metadata.
struct SafeTensors: Sendable {
    enum DType: String, CaseIterable, Sendable {
        case uint8 = "U8"
        case int64 = "I64"
        case float32 = "F32"
        case float64 = "F64"

        var bytes: Int {
            switch self {
            case .uint8: 1
            case .float32: 4
            case .int64, .float64: 8
            }
        }
    }

    /// `data` is little-endian, row by row, and exactly as long as `shape` and `dtype` need.
    struct Tensor: Sendable {
        let dtype: DType
        let shape: [Int]
        let data: Data
    }

    let metadata: [String: String]
    private let tensors: [String: Tensor]
    private let source: String

    /// PackageError: damaged, or no safetensors file.
    init(contentsOf file: URL) throws {
        try self.init(Data(contentsOf: file), source: file.lastPathComponent)
    }

    init(_ content: Data, source: String) throws {
        self.source = source
        let available = content.count - lengthBytes
        guard available >= 0 else { throw damaged(source, "it ends in the length of its header") }
        let headerBytes = Int64(bitPattern: content.prefix(lengthBytes).reversed().reduce(0) { $0 << 8 | UInt64($1) })
        guard (0...Int64(available)).contains(headerBytes) else {
            throw damaged(source, "its header is \(headerBytes) bytes long, \(available) are there")
        }
        let dataStart = lengthBytes + Int(headerBytes)
        var header = try JSON.object(content.subdata(in: lengthBytes..<dataStart), source: source)
        metadata = try texts(header.removeValue(forKey: "__metadata__") ?? .object([:]), source)
        let data = content.suffix(content.count - dataStart)
        let entries = try header.map { try Entry(name: $0, $1, source) }
            .sorted { ($0.begin, $0.end) < ($1.begin, $1.end) } // an empty one begins where the next one does
        try checkEntries(entries, fill: data.count, source)
        tensors = Dictionary(uniqueKeysWithValues: entries.map { entry in
            let bytes = data.dropFirst(entry.begin).prefix(entry.end - entry.begin)
            return (entry.name, Tensor(dtype: entry.dtype, shape: entry.shape, data: Data(bytes)))
        })
    }

    func contains(_ name: String) -> Bool {
        tensors[name] != nil
    }

    /// PackageError: no tensor `name`, or one of another type or number of dimensions.
    func tensor(_ name: String, _ dtype: DType, rank: Int) throws -> Tensor {
        guard let tensor = tensors[name] else { throw damaged(source, "it has no tensor \(name)") }
        guard tensor.dtype == dtype, tensor.shape.count == rank else {
            let found = "\(tensor.dtype.rawValue) \(tensor.shape)"
            throw damaged(source, "\(name) is \(found), must be \(dtype.rawValue) of \(rank) dimensions")
        }
        return tensor
    }
}

extension SafeTensors.Tensor {
    /// The numbers of an int64 tensor.
    var ints: [Int] {
        words(Int64.self).map { Int(Int64(littleEndian: $0)) }
    }

    /// The numbers of a float64 tensor.
    var doubles: [Double] {
        words(UInt64.self).map { Double(bitPattern: UInt64(littleEndian: $0)) }
    }

    /// The numbers of a float32 tensor.
    var floats: [Float] {
        words(UInt32.self).map { Float(bitPattern: UInt32(littleEndian: $0)) }
    }

    private func words<Word: FixedWidthInteger>(_ type: Word.Type) -> [Word] {
        data.withUnsafeBytes { bytes in
            stride(from: 0, to: bytes.count, by: dtype.bytes).map { bytes.loadUnaligned(fromByteOffset: $0, as: type) }
        }
    }
}

func damaged(_ source: String, _ problem: String) -> PackageError {
    PackageError("\(source): \(problem); \(exportAgain)")
}

private let lengthBytes = 8

/// What the header says of one tensor.
private struct Entry {
    let name: String
    let dtype: SafeTensors.DType
    let shape: [Int]
    let begin: Int
    let end: Int

    init(name: String, _ json: JSON, _ source: String) throws {
        guard let fields = json.object, let dtypeName = fields["dtype"]?.text,
              let shape = fields["shape"]?.list(of: \.int),
              let offsets = fields["data_offsets"]?.list(of: \.int), offsets.count == 2
        else { throw damaged(source, "its header: \(name) is \(json.shown), must have dtype, shape, data_offsets") }
        guard let dtype = SafeTensors.DType(rawValue: dtypeName) else {
            let known = SafeTensors.DType.allCases.map(\.rawValue).joined(separator: ", ")
            throw damaged(source, "\(name) is \(dtypeName), this app reads \(known)")
        }
        let bytes = byteCount(shape, dtype)
        guard let bytes, offsets[0] >= 0, offsets[1] >= offsets[0], offsets[1] - offsets[0] == bytes else {
            let needed = bytes.map(String.init) ?? "an impossible number of"
            let place = "from \(offsets[0]) to \(offsets[1])"
            throw damaged(source, "\(name) \(dtypeName) \(shape) takes \(needed) bytes, not those \(place)")
        }
        self.name = name
        self.dtype = dtype
        self.shape = shape
        begin = offsets[0]
        end = offsets[1]
    }
}

/// nil: a negative side, or more bytes than there can be.
private func byteCount(_ shape: [Int], _ dtype: SafeTensors.DType) -> Int? {
    shape.reduce(dtype.bytes) { bytes, side in
        guard let bytes, side >= 0 else { return nil }
        let (product, overflow) = bytes.multipliedReportingOverflow(by: side)
        return overflow ? nil : product
    }
}

private func checkEntries(_ entries: [Entry], fill available: Int, _ source: String) throws {
    var expected = 0
    for entry in entries {
        guard entry.begin == expected else {
            let found = "\(entry.name) begins at byte \(entry.begin)"
            throw damaged(source, "\(found), the tensor before it ends at \(expected)")
        }
        expected = entry.end
    }
    guard expected == available else {
        throw damaged(source, "its tensors take \(expected) bytes, \(available) are there")
    }
}

private func texts(_ json: JSON, _ source: String) throws -> [String: String] {
    guard let fields = json.object else { throw damaged(source, "its metadata is \(json.shown), must be an object") }
    return try fields.mapValues { value in
        guard let text = value.text else { throw damaged(source, "its metadata has \(value.shown), must be texts") }
        return text
    }
}
