package org.dmf.classifier

import org.json.JSONArray
import org.json.JSONException
import java.io.File

/** What an artifact must answer for a few [images], which have the input's size and are not yet normalised. */
sealed interface Golden {
    val images: List<Pixels>
    val names: List<String>

    companion object {
        /** PackageError: damaged, or not made for the model that [manifest] describes. */
        fun read(
            file: File,
            manifest: Manifest,
        ): Golden {
            val tensors = SafeTensors.read(file)
            val images = tensors.tensor("images", "U8", rank = 4)
            val count = images.shape[0]
            val sides = listOf(manifest.input.cropHeight, manifest.input.cropWidth, Pixels.CHANNELS)
            check(file, "images", images.shape, listOf(maxOf(count, 1)) + sides)
            val names = names(file, tensors, count)
            return if (manifest.detection == null) {
                val classes = manifest.outputs[0].shape[1]
                val frozenLogits =
                    if (FROZEN_LOGITS in tensors) rows(file, tensors, FROZEN_LOGITS, count, classes) else null
                val logits = rows(file, tensors, "logits", count, classes)
                GoldenLogits(pixels(images), names, logits, budgets(file, tensors, "budgets", count), frozenLogits)
            } else {
                val budgets = budgets(file, tensors, "score_budgets", count)
                GoldenObjects(pixels(images), names, expected(file, tensors, count), iou(file, tensors), budgets)
            }
        }
    }
}

/**
 * By image: [logits] of the float64 reference, (classes) each; [budgets], by how much a logit may differ from them.
 *
 * [frozenLogits] are those of a network that routes every image like the first one; null where unknown.
 */
class GoldenLogits(
    override val images: List<Pixels>,
    override val names: List<String>,
    val logits: List<DoubleArray>,
    val budgets: DoubleArray,
    val frozenLogits: List<DoubleArray>?,
) : Golden

/**
 * By image: the objects [expected], and [scoreBudgets], by how much a score may differ.
 *
 * Two boxes of one class are of one object if they overlap by at least [iou].
 */
class GoldenObjects(
    override val images: List<Pixels>,
    override val names: List<String>,
    val expected: List<List<ExpectedObject>>,
    val iou: Double,
    val scoreBudgets: DoubleArray,
) : Golden

private const val FROZEN_LOGITS = "frozen_logits"

private fun check(
    file: File,
    name: String,
    found: List<Int>,
    allowed: List<Int>,
) {
    if (found != allowed) throw damaged(file.name, "$name are $found, must be $allowed")
}

private fun pixels(images: SafeTensors.Tensor): List<Pixels> {
    val (count, height, width) = images.shape
    val data = images.data
    return List(count) { Pixels(width, height, ByteArray(height * width * Pixels.CHANNELS).also { data.get(it) }) }
}

private fun rows(
    file: File,
    tensors: SafeTensors,
    name: String,
    count: Int,
    classes: Int,
): List<DoubleArray> {
    val values = finite(file, tensors, name, listOf(count, classes))
    return List(count) { values.copyOfRange(it * classes, (it + 1) * classes) }
}

private fun finite(
    file: File,
    tensors: SafeTensors,
    name: String,
    shape: List<Int>,
): DoubleArray =
    doubles(file, tensors, name, shape).also { values ->
        if (!values.all { it.isFinite() }) throw damaged(file.name, "$name are not all finite")
    }

private fun doubles(
    file: File,
    tensors: SafeTensors,
    name: String,
    shape: List<Int>,
): DoubleArray {
    val tensor = tensors.tensor(name, "F64", rank = shape.size)
    check(file, name, tensor.shape, shape)
    return DoubleArray(shape.fold(1, Int::times)).also { tensor.data.asDoubleBuffer().get(it) }
}

private fun budgets(
    file: File,
    tensors: SafeTensors,
    name: String,
    count: Int,
): DoubleArray =
    doubles(file, tensors, name, listOf(count)).also { budgets ->
        if (!budgets.all { it >= 0 && it.isFinite() }) throw damaged(file.name, "$name must be >= 0")
    }

/** Up to as many objects as there are rows for each image; a label of -1 is no object. */
private fun expected(
    file: File,
    tensors: SafeTensors,
    count: Int,
): List<List<ExpectedObject>> {
    val labels = tensors.tensor("object_labels", "I64", rank = 2)
    val most = labels.shape[1]
    val rows = listOf(count, most)
    check(file, "object_labels", labels.shape, rows)
    val decided = tensors.tensor("object_decided", "U8", rank = 2)
    check(file, "object_decided", decided.shape, rows)
    val scores = finite(file, tensors, "object_scores", rows)
    val boxes = finite(file, tensors, "object_boxes", rows + SIDES)

    fun expected(row: Int): ExpectedObject? {
        val label =
            labels.data
                .asLongBuffer()
                .get(row)
                .toInt()
        if (label < 0) return null
        val (left, top, right, bottom) = boxes.slice(row * SIDES until (row + 1) * SIDES)
        return ExpectedObject(
            DetectedObject(label, scores[row], Box(left, top, right, bottom)),
            decided = decided.data.get(row) != 0.toByte(),
        )
    }
    return List(count) { image -> (0 until most).mapNotNull { expected(image * most + it) } }
}

private const val SIDES = 4

private fun iou(
    file: File,
    tensors: SafeTensors,
): Double =
    tensors.metadata["iou"]?.toDoubleOrNull()?.takeIf { it in 0.0..1.0 }
        ?: throw damaged(file.name, "its metadata's iou is ${tensors.metadata["iou"]}, must be a number from 0 to 1")

private fun names(
    file: File,
    tensors: SafeTensors,
    count: Int,
): List<String> {
    val text = tensors.metadata["names"] ?: throw damaged(file.name, "its metadata has no names")
    val names =
        try {
            JSONArray(text).let { array -> List(array.length()) { array.getString(it) } }
        } catch (error: JSONException) {
            throw damaged(file.name, "names: ${error.oneLine()}", error)
        }
    if (names.size != count) throw damaged(file.name, "it has ${names.size} names of $count images")
    return names
}
