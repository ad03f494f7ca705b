import DMFClassifier
import Foundation

/// What the app is launched with to measure without a person:
///
///     --benchmark-run ID --package NAME_OR_PATH --compute-units all,cpu_only --warmup N --repeats N
///
/// and, of a package of several functions, `--function NAME` for one of them; `--post-processing` for a detector whose
/// objects are to be chosen within the time. Or, when all is measured, to take away
/// what a host left here: `--clean-up NAME,NAME`.
struct LaunchArguments {
    static let runFlag = "--benchmark-run"
    private static let cleanUpFlag = "--clean-up"
    private static let flags = [
        runFlag, cleanUpFlag, "--package", "--function", "--compute-units", "--warmup", "--repeats"
    ]

    private static let postProcessingFlag = "--post-processing"

    private let values: [String: String]
    private let postProcessing: Bool

    /// Words that are none of these flags or their values are Xcode's and the system's, and are skipped.
    init(_ words: [String]) {
        var found: [String: String] = [:]
        for (flag, value) in zip(words, words.dropFirst()) where LaunchArguments.flags.contains(flag) {
            found[flag] = value
        }
        if let last = words.last, LaunchArguments.flags.contains(last) { found[last] = "" }
        values = found
        postProcessing = words.contains(LaunchArguments.postProcessingFlag)
    }

    /// Whether somebody asks for a measurement, rightly or not.
    var asksForRun: Bool { values[LaunchArguments.runFlag] != nil }

    /// The packages that are no longer needed; nil where nobody says so, or asks for a measurement, too.
    var cleanUp: [String]? {
        asksForRun ? nil : values[LaunchArguments.cleanUpFlag]?.split(separator: ",").map(String.init)
    }

    /// The name of the result. ArgumentError: not one that can be a file's.
    func run() throws -> String {
        let run = try text(LaunchArguments.runFlag)
        guard (1...64).contains(run.utf8.count), run.utf8.allSatisfy(isLetterDigitOrHyphen) else {
            let shown = String(run.prefix(shownCharacters))
            throw ArgumentError("\(LaunchArguments.runFlag) is \"\(shown)\", it must be 1 to 64 letters, digits or -")
        }
        return run
    }

    /// What to measure, `find` being who knows the packages by name.
    ///
    /// ArgumentError: a flag that must be there is missing, or its value is not allowed. PackageError: `find` does not
    /// know it.
    func plan(find: (String) throws -> URL) throws -> BenchmarkPlan {
        let package = try text("--package")
        return try BenchmarkPlan(
            folder: package.hasPrefix("/") ? URL(fileURLWithPath: package) : find(package),
            function: values["--function"],
            computeUnits: text("--compute-units").split(separator: ",", omittingEmptySubsequences: false)
                .map { try ComputeUnits(named: String($0)) },
            warmup: number("--warmup"),
            repeats: number("--repeats"),
            postProcessing: postProcessing
        )
    }

    private func text(_ flag: String) throws -> String {
        guard let value = values[flag] else { throw ArgumentError("no \(flag); give a value") }
        return value
    }

    private func number(_ flag: String) throws -> Int {
        let value = try text(flag)
        guard let number = Int(value) else {
            throw ArgumentError("\(flag) is \"\(value.prefix(shownCharacters))\", it must be a whole number")
        }
        return number
    }
}

/// A request that cannot be followed; ``message`` is one line for people.
struct ArgumentError: LocalizedError, Equatable {
    let message: String

    init(_ message: String) {
        self.message = message
    }

    var errorDescription: String? { message }
}

private let shownCharacters = 80

private func isLetterDigitOrHyphen(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"): true
    default: false
    }
}
