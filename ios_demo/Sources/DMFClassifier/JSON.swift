import Foundation

/// A JSON value, read and written by Foundation's coders, which tell `true` from 1 on every platform.
enum JSON: Equatable, Sendable {
    case null
    case bool(Bool)
    case int(Int)
    case double(Double)
    case text(String)
    case list([JSON])
    case object([String: JSON])

    /// PackageError: `data` is not one JSON object.
    static func object(_ data: Data, source: String) throws -> [String: JSON] {
        let value: JSON
        do {
            value = try JSONDecoder().decode(JSON.self, from: data)
        } catch DecodingError.dataCorrupted(let context) {
            let reason = context.underlyingError?.oneLine ?? context.debugDescription
            throw PackageError("\(source): not valid JSON: \(reason); \(exportAgain)")
        } catch {
            throw PackageError("\(source): not valid JSON: \(error.oneLine); \(exportAgain)")
        }
        guard case .object(let fields) = value else {
            throw PackageError("\(source): $: is \(value.shown), must be an object; \(exportAgain)")
        }
        return fields
    }

    /// As text without line breaks, keys sorted. EncodingError: a number that is not finite.
    func data(pretty: Bool = false) throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        if pretty { encoder.outputFormatting.insert(.prettyPrinted) }
        return try encoder.encode(self)
    }

    /// For an error message: not too long.
    var shown: String {
        let text = (try? data()).flatMap { String(data: $0, encoding: .utf8) } ?? "no JSON"
        return text.count <= shownCharacters ? text : text.prefix(shownCharacters) + "..."
    }
}

extension JSON: Codable {
    init(from decoder: Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Int.self) {
            self = .int(value)
        } else if let value = try? container.decode(Double.self) {
            self = .double(value)
        } else if let value = try? container.decode(String.self) {
            self = .text(value)
        } else if let value = try? container.decode([JSON].self) {
            self = .list(value)
        } else {
            self = .object(try container.decode([String: JSON].self))
        }
    }

    func encode(to encoder: Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .bool(let value): try container.encode(value)
        case .int(let value): try container.encode(value)
        case .double(let value): try container.encode(value)
        case .text(let value): try container.encode(value)
        case .list(let value): try container.encode(value)
        case .object(let value): try container.encode(value)
        }
    }
}

/// What a value is, where it is that.
extension JSON {
    var bool: Bool? { if case .bool(let value) = self { value } else { nil } }

    var int: Int? { if case .int(let value) = self { value } else { nil } }

    var number: Double? {
        switch self {
        case .int(let value): Double(value)
        case .double(let value) where value.isFinite: value
        default: nil
        }
    }

    var text: String? { if case .text(let value) = self { value } else { nil } }

    var object: [String: JSON]? { if case .object(let value) = self { value } else { nil } }

    /// The elements of a list, if `read` makes something of each.
    func list<T>(of read: (JSON) -> T?) -> [T]? {
        guard case .list(let elements) = self else { return nil }
        let values = elements.compactMap(read)
        return values.count == elements.count ? values : nil
    }
}

/// To write one: what is nil becomes null.
extension JSON {
    init(_ value: Bool?) { self = value.map(JSON.bool) ?? .null }
    init(_ value: Int?) { self = value.map(JSON.int) ?? .null }
    init(_ value: Double?) { self = value.map(JSON.double) ?? .null }
    init(_ value: String?) { self = value.map(JSON.text) ?? .null }
}

private let shownCharacters = 80
