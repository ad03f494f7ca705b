package org.dmf.classifier

import java.util.PriorityQueue
import kotlin.math.max
import kotlin.math.min

/** A part of a picture, from its upper left corner to its lower right one. */
data class Box(
    val left: Double,
    val top: Double,
    val right: Double,
    val bottom: Double,
) {
    private val area get() = (right - left) * (bottom - top)

    /** With each side [px] further out. */
    fun grown(px: Double) = Box(left - px, top - px, right + px, bottom + px)

    /** Intersection over union; 0 where neither has an area. */
    fun overlap(other: Box): Double {
        val width = max(min(right, other.right) - max(left, other.left), 0.0)
        val height = max(min(bottom, other.bottom) - max(top, other.top), 0.0)
        val intersection = width * height
        return intersection / max(area + other.area - intersection, java.lang.Double.MIN_NORMAL)
    }
}

/** An object in a picture; [box] is in px of the network's input. */
data class DetectedObject(
    override val classIndex: Int,
    override val score: Double,
    val box: Box,
) : Finding

/**
 * What [outputs] mean, the surest first, of equal ones the first; as `runtime/detections.py` reads them.
 *
 * They are finite, and as [Detection.form] says. EngineError: their sizes do not fit to one another.
 */
internal fun Detection.objects(outputs: List<FloatArray>): List<DetectedObject> =
    when (form) {
        Form.DENSE -> {
            val (scores, boxes) = outputs
            checkSizes(boxes.size >= SIDES && scores.size % (boxes.size / SIDES) == 0, outputs)
            suppressed(scores, boxes)
        }

        Form.ONNX_NMS -> {
            val (boxes, scores, labels) = outputs
            checkSizes(boxes.size == SIDES * scores.size && labels.size == scores.size, outputs)
            surest(List(scores.size) { DetectedObject(labels[it].toInt(), scores[it].toDouble(), box(boxes, it)) })
        }

        Form.TFLITE_DETECTION_POSTPROCESS -> {
            val (boxes, labels, scores, count) = outputs
            val objects =
                List(count[0].toInt().coerceIn(0, scores.size)) {
                    val (top, left, bottom, right) = box(boxes, it)
                    DetectedObject(labels[it].toInt(), scores[it].toDouble(), Box(left, top, right, bottom))
                }
            surest(objects)
        }
    }

private const val SIDES = 4

private fun Detection.checkSizes(
    fit: Boolean,
    outputs: List<FloatArray>,
) {
    if (!fit) {
        val sizes = form.outputs.zip(outputs).joinToString { (output, values) -> "${values.size} of ${output.name}" }
        throw EngineError("the artifact's answers do not fit to one another: $sizes")
    }
}

private fun box(
    boxes: FloatArray,
    row: Int,
): Box {
    val first = SIDES * row
    return Box(
        boxes[first].toDouble(),
        boxes[first + 1].toDouble(),
        boxes[first + 2].toDouble(),
        boxes[first + 3].toDouble(),
    )
}

private fun Detection.surest(objects: List<DetectedObject>): List<DetectedObject> =
    objects.sortedByDescending { it.score }.take(maxDetections)

/** Those that no surer one of their class overlaps too much; it ends with the last one that is wanted. */
private fun Detection.suppressed(
    scores: FloatArray,
    boxes: FloatArray,
): List<DetectedObject> {
    val classes = scores.size / (boxes.size / SIDES)
    val kept = mutableListOf<DetectedObject>()
    for (pair in candidates(scores)) {
        if (kept.size == maxDetections) break
        val candidate = DetectedObject(pair % classes, scores[pair].toDouble(), box(boxes, pair / classes))
        val isHidden =
            kept.any { it.classIndex == candidate.classIndex && it.box.overlap(candidate.box) > nmsIou }
        if (!isHidden) kept += candidate
    }
    return kept
}

/**
 * Indices of the surest pairs of anchor and class above the threshold, by falling score, of equal ones the first.
 *
 * There may be millions: a pair is one whole number, of which the upper half falls with the score, for floats that are
 * not negative are in the order of their bits, and the lower half is the index.
 */
private fun Detection.candidates(scores: FloatArray): List<Int> {
    val most = candidates ?: scores.size
    val surest = PriorityQueue<Long>(reverseOrder())
    for (index in scores.indices) {
        if (scores[index] <= scoreThreshold) continue
        val pair = ((Int.MAX_VALUE - scores[index].toRawBits()).toLong() shl Int.SIZE_BITS) or index.toLong()
        if (surest.size < most || pair < surest.peek()) surest += pair
        if (surest.size > most) surest.poll()
    }
    return surest.sorted().map { it.toInt() }
}
