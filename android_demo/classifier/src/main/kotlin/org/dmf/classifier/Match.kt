package org.dmf.classifier

import kotlin.math.abs

/** An object that a detector must find, if it is [decided]; else a tiny error makes it appear or vanish. */
class ExpectedObject(
    val expected: DetectedObject,
    val decided: Boolean,
)

/** Which of the [found] objects are expected ones, and how near; [missed] are decided ones that were not found. */
class Match(
    val found: Int,
    val missed: Int,
    val ious: List<Double>,
    val scoreErrors: List<Double>,
) {
    /** Whether every decided object is found, and every found one expected. */
    val isComplete: Boolean get() = missed == 0 && found == ious.size

    /** The largest; 1 for an object that only one of both has. */
    val scoreError: Double get() = if (isComplete) scoreErrors.maxOrNull() ?: 0.0 else 1.0
}

/** Boxes are grown by so many px before they are matched: some have no area, cut off at an edge. */
private const val SLACK = 1.0

/**
 * Each of the [found] objects, the surest first, is the expected one of its class whose score is nearest, of those that
 * it overlaps by at least [iou], both grown by a pixel; no object is expected twice. As `runtime/detections.py` does it.
 */
fun match(
    found: List<DetectedObject>,
    expected: List<ExpectedObject>,
    iou: Double,
): Match {
    val free = expected.toMutableSet()
    val ious = mutableListOf<Double>()
    val scoreErrors = mutableListOf<Double>()
    for (each in found) {
        val near =
            free.filter { it.expected.classIndex == each.classIndex && grownOverlap(each, it.expected) >= iou }
        val nearest = near.minByOrNull { abs(it.expected.score - each.score) } ?: continue
        free -= nearest
        ious += grownOverlap(each, nearest.expected)
        scoreErrors += abs(each.score - nearest.expected.score)
    }
    return Match(found.size, free.count { it.decided }, ious, scoreErrors)
}

private fun grownOverlap(
    a: DetectedObject,
    b: DetectedObject,
) = a.box.grown(SLACK).overlap(b.box.grown(SLACK))
