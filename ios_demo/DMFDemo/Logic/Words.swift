import DMFClassifier
import Foundation

/// A verdict in words; nil is a package without golden vectors.
func words(_ verdict: Verdict?) -> String {
    guard let verdict else {
        return "This package has no golden vectors: nobody knows whether its answers are right on this device."
    }
    let error = verdict.maxAbsError.map(figure) ?? "infinitely much"
    let budget = figure(verdict.budgetAbsError)
    if verdict.passed {
        return "Self-test passed: the largest error is \(error), of “\(verdict.image)”; \(budget) is allowed."
    }
    let distrust = "Answers on these compute units can’t be trusted."
    if verdict.frozenRouting {
        return "Self-test failed: every picture is computed with the weights chosen for the first one. \(distrust)"
    }
    if !verdict.isComplete, verdict.maxAbsError != nil {
        return "Self-test failed: in “\(verdict.image)” it finds other objects than it must. \(distrust)"
    }
    return "Self-test failed: the answer for “\(verdict.image)” is off by \(error), \(budget) is allowed. \(distrust)"
}

/// Why a report is no measure, in words.
func words(_ flag: Flag) -> String {
    switch flag {
    case .throttled: "Not valid: the device was hot, or became slower while it was measured. Let it cool down."
    case .batterySaver: "Not valid: low power mode was on. Switch it off."
    case .screenOff: "Not valid: the screen was off."
    case .tooFewSamples: "Not valid: fewer repeats than 30."
    case .notForeground: "Not valid: this app was not in front throughout."
    case .wrongAnswers: "Not valid: the self-test failed; the answers can’t be trusted."
    }
}

/// What of a detector was timed.
func words(_ postProcessing: PostProcessing) -> String {
    switch postProcessing {
    case .none: "The network alone was timed, not how its objects are chosen."
    case .graph: "The network was timed, which chooses its objects itself."
    case .runner: "The network was timed, and how its objects are chosen behind it."
    }
}

func words(_ computeUnits: ComputeUnits) -> String {
    switch computeUnits {
    case .all: "All"
    case .cpuAndNeuralEngine: "CPU and Neural Engine"
    case .cpuAndGPU: "CPU and GPU"
    case .cpuOnly: "CPU only"
    }
}

/// What the model sees of a picture.
func resolution(_ input: InputSpec) -> String {
    "\(input.cropWidth) × \(input.cropHeight) px"
}

/// An error or a budget, whose size is what matters.
func figure(_ value: Double) -> String {
    String(format: "%.3g", value)
}
