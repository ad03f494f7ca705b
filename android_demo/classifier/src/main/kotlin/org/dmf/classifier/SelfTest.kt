package org.dmf.classifier

import kotlin.math.abs

/**
 * How near the answer for one golden image is to the reference; NaN anywhere is an infinite error.
 *
 * A detector's is that of its scores; it is 1, and not [passed], if an object is missing or one is not expected.
 */
data class ImageError(
    val image: String,
    val maxAbsError: Double,
    val budgetAbsError: Double,
    val passed: Boolean = maxAbsError <= budgetAbsError,
)

/**
 * What an engine answered for the golden images.
 *
 * [frozenRouting]: the answers are those of a network that routes every image like the first one.
 */
data class SelfTestResult(
    val images: List<ImageError>,
    val frozenRouting: Boolean,
) {
    /** The image whose error is largest beside its budget. */
    val worst: ImageError get() = images.maxBy(::excess)

    val passed: Boolean get() = !frozenRouting && images.all { it.passed }

    private fun excess(error: ImageError): Double =
        if (error.maxAbsError == 0.0) 0.0 else error.maxAbsError / error.budgetAbsError
}

object SelfTest {
    /** Runs the golden images through [engine], of the model that [manifest] describes. EngineError: it refuses one. */
    fun run(
        engine: Engine,
        golden: Golden,
        manifest: Manifest,
    ): SelfTestResult {
        val answers = golden.images.asSequence().map { engine.run(Preprocess.normalise(it, manifest.input)) }
        return when (golden) {
            is GoldenLogits -> compareLogits(answers.map { it[0].copyOf() }.toList(), golden)
            is GoldenObjects -> compareObjects(answers, golden, checkNotNull(manifest.detection))
        }
    }
}

private fun compareLogits(
    answers: List<FloatArray>,
    golden: GoldenLogits,
): SelfTestResult {
    val errors =
        answers.mapIndexed { i, answer ->
            ImageError(golden.names[i], maxAbsError(answer, golden.logits[i]), golden.budgets[i])
        }
    return SelfTestResult(errors, golden.frozenLogits?.let { routingIsFrozen(answers, golden, it) } ?: false)
}

private fun compareObjects(
    answers: Sequence<List<FloatArray>>,
    golden: GoldenObjects,
    detection: Detection,
): SelfTestResult {
    val errors =
        answers.mapIndexed { i, outputs ->
            if (areFinite(outputs)) {
                val match = match(detection.objects(outputs), golden.expected[i], golden.iou)
                val isNear = match.scoreError <= golden.scoreBudgets[i]
                ImageError(golden.names[i], match.scoreError, golden.scoreBudgets[i], match.isComplete && isNear)
            } else {
                ImageError(golden.names[i], Double.POSITIVE_INFINITY, golden.scoreBudgets[i])
            }
        }
    return SelfTestResult(errors.toList(), frozenRouting = false)
}

/** Whether there are images that frozen routing would answer differently, and each of them was answered so. */
private fun routingIsFrozen(
    answers: List<FloatArray>,
    golden: GoldenLogits,
    frozenLogits: List<DoubleArray>,
): Boolean {
    val telling =
        answers.indices.filter { maxAbsDifference(frozenLogits[it], golden.logits[it]) > golden.budgets[it] }
    return telling.isNotEmpty() && telling.all { maxAbsError(answers[it], frozenLogits[it]) <= golden.budgets[it] }
}

private fun maxAbsError(
    answer: FloatArray,
    expected: DoubleArray,
): Double {
    if (answer.size != expected.size) {
        throw EngineError("the artifact answers ${answer.size} logits, the golden vectors have ${expected.size}")
    }
    return maxAbsDifference(DoubleArray(answer.size) { answer[it].toDouble() }, expected)
}

private fun maxAbsDifference(
    values: DoubleArray,
    expected: DoubleArray,
): Double =
    values.indices.maxOf { i ->
        abs(values[i] - expected[i]).let { if (it.isNaN()) Double.POSITIVE_INFINITY else it }
    }
