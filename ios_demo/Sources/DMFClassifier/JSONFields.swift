/// Reads the fields of one object of a document; every error is a PackageError that names the field's JSON path.
struct JSONFields {
    private let fields: [String: JSON]
    private let source: String
    private let path: String

    init(_ fields: [String: JSON], source: String, path: String = "$") {
        self.fields = fields
        self.source = source
        self.path = path
    }

    func text(_ name: String) throws -> String {
        try field(name, "text that is not empty") { value in value.text.flatMap { $0.isEmpty ? nil : $0 } }
    }

    func textOrNull(_ name: String) throws -> String? {
        try unlessNull(name) { try field(name, "text or null", \.text) }
    }

    func flag(_ name: String) throws -> Bool {
        try field(name, "true or false", \.bool)
    }

    func flagOrNull(_ name: String) throws -> Bool? {
        try unlessNull(name) { try field(name, "true, false or null", \.bool) }
    }

    func int(_ name: String, min: Int = 0) throws -> Int {
        try field(name, "an integer >= \(min)") { value in value.int.flatMap { $0 >= min ? $0 : nil } }
    }

    func intOrNull(_ name: String) throws -> Int? {
        try unlessNull(name) { try field(name, "an integer or null", \.int) }
    }

    func number(_ name: String) throws -> Double {
        try field(name, "a number", \.number)
    }

    func numberOrNull(_ name: String) throws -> Double? {
        try unlessNull(name) { try field(name, "a number or null", \.number) }
    }

    /// Of a whole.
    func share(_ name: String) throws -> Double {
        try field(name, "a number of 0 to 1") { value in value.number.flatMap { (0...1).contains($0) ? $0 : nil } }
    }

    /// The case whose raw value the field holds.
    func choice<T: RawRepresentable & CaseIterable>(_ name: String) throws -> T where T.RawValue == String {
        let ids = T.allCases.map(\.rawValue)
        return try field(name, oneOf(ids)) { value in value.text.flatMap(T.init(rawValue:)) }
    }

    func choice(_ name: String, of allowed: [String]) throws -> String {
        try field(name, oneOf(allowed)) { value in value.text.flatMap { allowed.contains($0) ? $0 : nil } }
    }

    func ints(_ name: String, _ allowed: String, where accept: ([Int]) -> Bool) throws -> [Int] {
        try field(name, allowed) { value in value.list(of: \.int).flatMap { accept($0) ? $0 : nil } }
    }

    func intsOrNull(_ name: String, _ allowed: String, where accept: ([Int]) -> Bool) throws -> [Int]? {
        try unlessNull(name) { try ints(name, allowed, where: accept) }
    }

    func numbers(_ name: String, _ allowed: String, where accept: ([Double]) -> Bool) throws -> [Double] {
        try field(name, allowed) { value in value.list(of: \.number).flatMap { accept($0) ? $0 : nil } }
    }

    func texts(_ name: String) throws -> [String] {
        try field(name, "a list of texts") { $0.list(of: \.text) }
    }

    func fields(_ name: String) throws -> JSONFields {
        JSONFields(try field(name, "an object", \.object), source: source, path: "\(path).\(name)")
    }

    func fieldsOrNull(_ name: String) throws -> JSONFields? {
        try unlessNull(name) { try fields(name) }
    }

    func listOfFields(_ name: String, orNone: Bool = false) throws -> [JSONFields] {
        let elements = try field(name, orNone ? "a list of objects" : "a list of at least one object") { value in
            value.list(of: \.object).flatMap { $0.isEmpty && !orNone ? nil : $0 }
        }
        return elements.enumerated().map { index, element in
            JSONFields(element, source: source, path: "\(path).\(name)[\(index)]")
        }
    }

    /// What `read` makes of a field; nil is an error, as is no such field.
    func field<T>(_ name: String, _ allowed: String, _ read: (JSON) -> T?) throws -> T {
        let found = fields[name]
        guard let value = found.flatMap(read) else {
            throw error(name, "is \(found?.shown ?? "missing"), must be \(allowed); \(exportAgain)")
        }
        return value
    }

    func error(_ name: String, _ problem: String) -> PackageError {
        PackageError("\(source): \(path).\(name): \(problem)")
    }

    private func unlessNull<T>(_ name: String, _ read: () throws -> T) rethrows -> T? {
        fields[name] == .null ? nil : try read()
    }

    private func oneOf(_ ids: [String]) -> String {
        ids.count == 1 ? ids[0] : "one of \(ids.joined(separator: ", "))"
    }
}
