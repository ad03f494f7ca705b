import Foundation

/// A class and how probable it is, 0..1.
public struct Prediction: Equatable, Sendable {
    public var classIndex: Int
    public var probability: Double
}

/// What a latency is not worth; the raw value is its name in reports.
public enum Flag: String, CaseIterable, Sendable {
    case throttled
    case batterySaver = "battery_saver"
    case screenOff = "screen_off"
    case tooFewSamples = "too_few_samples"
    case notForeground = "not_foreground"
    case wrongAnswers = "wrong_answers"
}

/// Probabilities, (classes), of `logits`, in float64.
public func softmax(_ logits: [Float]) -> [Double] {
    let largest = logits.max() ?? 0
    let powers = logits.map { exp(Double($0) - Double(largest)) }
    let sum = powers.reduce(0, +)
    return powers.map { $0 / sum }
}

/// The `count` most probable classes, best first; of equal ones the lower index first.
public func topK(_ probabilities: [Double], _ count: Int) -> [Prediction] {
    let predictions = probabilities.enumerated().map { Prediction(classIndex: $0, probability: $1) }
    let sorted = predictions.sorted {
        $0.probability == $1.probability ? $0.classIndex < $1.classIndex : $0.probability > $1.probability
    }
    return Array(sorted.prefix(count))
}

/// The percentile `percent`, 0..100, of `samples`, linearly interpolated as numpy does by default.
public func percentile(_ samples: [Double], _ percent: Double) -> Double {
    let sorted = samples.sorted()
    let position = percent / 100 * Double(sorted.count - 1)
    let below = Int(position)
    let low = sorted[below]
    let high = sorted[min(below + 1, sorted.count - 1)]
    let fraction = position - Double(below)
    return fraction < 0.5 ? low + (high - low) * fraction : high - (high - low) * (1 - fraction)
}

/// The arithmetic mean.
public func mean(_ samples: [Double]) -> Double {
    samples.reduce(0, +) / Double(samples.count)
}

/// Why `samplesMs` are no measure of a device: its state before and after them, and what was seen meanwhile.
func invalidBecause(
    _ samplesMs: [Double], before: DeviceState, after: DeviceState, foreground: Bool, selfTestPassed: Bool?
) -> [Flag] {
    let states = [before, after]
    let reasons: [(Flag, Bool)] = [
        (.throttled, states.contains { ($0.thermalStatus ?? 0) >= 1 } || slowedDown(samplesMs)),
        (.batterySaver, states.contains { $0.batterySaver == true }),
        (.screenOff, states.contains { $0.screenOn == false }),
        (.tooFewSamples, samplesMs.count < 30),
        (.notForeground, !foreground),
        (.wrongAnswers, selfTestPassed == false)
    ]
    return reasons.filter(\.1).map(\.0)
}

/// Whether the median of the last quarter is more than 1.2 times that of the first.
private func slowedDown(_ samplesMs: [Double]) -> Bool {
    guard samplesMs.count >= 8 else { return false }
    let quarter = samplesMs.count / 4
    return percentile(samplesMs.suffix(quarter), 50) > 1.2 * percentile(Array(samplesMs.prefix(quarter)), 50)
}
