package org.dmf.classifier

import kotlin.math.exp

/** A class of the whole picture, and how probable it is. */
data class Prediction(
    override val classIndex: Int,
    override val score: Double,
) : Finding

/** What a latency is not worth; [id] is its name in reports. */
enum class Flag(
    val id: String,
) {
    THROTTLED("throttled"),
    BATTERY_SAVER("battery_saver"),
    SCREEN_OFF("screen_off"),
    TOO_FEW_SAMPLES("too_few_samples"),
    NOT_FOREGROUND("not_foreground"),
    WRONG_ANSWERS("wrong_answers"),
}

/** Probabilities, (classes), of [logits], in float64. */
fun softmax(logits: FloatArray): DoubleArray {
    val max = logits.max().toDouble()
    val powers = DoubleArray(logits.size) { exp(logits[it] - max) }
    val sum = powers.sum()
    return DoubleArray(powers.size) { powers[it] / sum }
}

/** The [count] most probable classes, best first; of equal ones the lower index first. */
fun topK(
    probabilities: DoubleArray,
    count: Int,
): List<Prediction> =
    probabilities
        .mapIndexed(::Prediction)
        .sortedByDescending { it.score }
        .take(count)

/** The percentile [percent], 0..100, of [samples], linearly interpolated as numpy does by default. */
fun percentile(
    samples: List<Double>,
    percent: Double,
): Double {
    val sorted = samples.sorted()
    val position = percent / 100 * (sorted.size - 1)
    val below = position.toInt()
    val low = sorted[below]
    val high = sorted[minOf(below + 1, sorted.lastIndex)]
    val fraction = position - below
    return if (fraction < 0.5) low + (high - low) * fraction else high - (high - low) * (1 - fraction)
}

/** Why [samplesMs] are no measure of a phone: its state before and after them, and what was seen meanwhile. */
fun invalidBecause(
    samplesMs: List<Double>,
    before: DeviceState,
    after: DeviceState,
    foreground: Boolean,
    selfTestPassed: Boolean?,
): List<Flag> {
    val states = listOf(before, after)
    return buildList {
        if (states.any { (it.thermalStatus ?: 0) >= 1 } || slowedDown(samplesMs)) add(Flag.THROTTLED)
        if (states.any { it.batterySaver == true }) add(Flag.BATTERY_SAVER)
        if (states.any { it.screenOn == false }) add(Flag.SCREEN_OFF)
        if (samplesMs.size < MIN_SAMPLES) add(Flag.TOO_FEW_SAMPLES)
        if (!foreground) add(Flag.NOT_FOREGROUND)
        if (selfTestPassed == false) add(Flag.WRONG_ANSWERS)
    }
}

private const val MIN_SAMPLES = 30
private const val MIN_SAMPLES_OF_QUARTERS = 8
private const val SLOWER = 1.2

private fun slowedDown(samplesMs: List<Double>): Boolean {
    if (samplesMs.size < MIN_SAMPLES_OF_QUARTERS) return false
    val quarter = samplesMs.size / 4
    return median(samplesMs.takeLast(quarter)) > SLOWER * median(samplesMs.take(quarter))
}

private fun median(samples: List<Double>) = percentile(samples, 50.0)
