package org.dmf.classifier

/** What a network says of a picture or of a part of it: a class, and how sure it is, 0..1. */
sealed interface Finding {
    val classIndex: Int
    val score: Double
}

/**
 * What the [outputs] of the network mean, the surest first: every class that a classifier knows, or the objects that a
 * detector found. EngineError: they are not all finite, or do not fit to one another.
 */
fun Manifest.findings(outputs: List<FloatArray>): List<Finding> {
    if (!areFinite(outputs)) throw EngineError("the network's answer is no number; use another accelerator")
    if (detection != null) return detection.objects(outputs)
    val probabilities = softmax(outputs[0])
    return topK(probabilities, probabilities.size)
}

internal fun areFinite(outputs: List<FloatArray>): Boolean = outputs.all { values -> values.all { it.isFinite() } }
