import DMFClassifier
import Foundation

/// Wrong arguments; `message` is one line for people.
struct UsageError: LocalizedError, Equatable {
    let message: String

    var errorDescription: String? { message }
}

/// What the command was asked for.
struct Arguments: Equatable {
    var package = ""
    var function: String?
    var computeUnits = ComputeUnits.allCases
    var warmup = 10
    var repeats = 100
    var postProcessing = false
    var json: String?
    var help = false

    static let usage = """
        usage: dmf-bench-coreml PACKAGE [--function NAME] [--compute-units LIST] [--warmup N] [--repeats N]
                                [--post-processing] [--json FILE]

        Measure latency and memory of an exported Core ML package on this Mac: for each of the compute units it is
        loaded, run on its golden vectors, and timed; so is each function of one that has several.

          PACKAGE               a folder dmf-export wrote with --format coreml
          --function NAME       of a package that has several (default: all, one after the other)
          --compute-units LIST  of \(ComputeUnits.allCases.map(\.rawValue).joined(separator: ","))
                                (default: all four, one after the other)
          --warmup N            untimed runs before the first sample (default: 10)
          --repeats N           timed runs (default: 100)
          --post-processing     time how a detector's objects are chosen, too, where its graph does not choose them
          --json FILE           write the raw samples and conditions too; - is stdout, without the table
          -h, --help            show this

        exit codes: 0 measured, 2 wrong arguments or an altered package, 5 Core ML failed, or this is no Mac
        """

    /// UsageError: not what `usage` says.
    init(_ words: [String]) throws {
        var words = words[...]
        var packages: [String] = []
        while let word = words.popFirst() {
            guard word.hasPrefix("-") else {
                packages.append(word)
                continue
            }
            let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            let flag = parts[0]
            func value() throws -> String {
                guard let value = parts.count > 1 ? parts[1] : words.popFirst() else {
                    throw UsageError(message: "\(flag) needs a value (see --help)")
                }
                return value
            }
            if flag == "--post-processing", parts.count > 1 {
                throw UsageError(message: "\(flag) takes no value (see --help)")
            }
            try take(flag, value)
        }
        if help { return }
        guard packages.count == 1 else {
            throw UsageError(message: "\(packages.count) packages were given, give one (see --help)")
        }
        package = packages[0]
    }

    private mutating func take(_ flag: String, _ value: () throws -> String) throws {
        switch flag {
        case "--function": function = try value()
        case "--compute-units": computeUnits = try list(value())
        case "--warmup": warmup = try wholeNumber(value(), flag, atLeast: 0)
        case "--repeats": repeats = try wholeNumber(value(), flag, atLeast: 1)
        case "--post-processing": postProcessing = true
        case "--json": json = try value()
        case "-h", "--help": help = true
        default: throw UsageError(message: "unknown argument \"\(flag)\" (see --help)")
        }
    }
}

private func list(_ text: String) throws -> [ComputeUnits] {
    let names = text.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    do {
        return try names.map(ComputeUnits.init(named:)).reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
    } catch {
        throw UsageError(message: "--compute-units: \(error.oneLine)")
    }
}

private func wholeNumber(_ text: String, _ flag: String, atLeast min: Int) throws -> Int {
    guard let number = Int(text), number >= min else {
        throw UsageError(message: "\(flag): \"\(text)\" is not a whole number >= \(min)")
    }
    return number
}
