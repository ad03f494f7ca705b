import Foundation

/// A package, or a picture, that cannot be used; ``message`` is one line for people.
public struct PackageError: LocalizedError, Equatable {
    public let message: String

    public init(_ message: String) {
        self.message = message
    }

    public var errorDescription: String? { message }
}

/// An inference runtime that cannot do what was asked of it; ``message`` is one line for people.
public struct PredictorError: LocalizedError, Equatable {
    public let message: String

    public init(_ message: String) {
        self.message = message
    }

    /// What the runtime itself threw, as one line.
    public init(cannot action: String, because error: any Error) {
        message = "cannot \(action): \(error.oneLine)"
    }

    public var errorDescription: String? { message }
}

extension Error {
    /// What went wrong, as one line that is not too long for a person.
    public var oneLine: String {
        let words = localizedDescription.split(whereSeparator: \.isWhitespace)
        return String(words.joined(separator: " ").prefix(shownCharacters))
    }
}

let exportAgain = "export the package again"
private let shownCharacters = 200
