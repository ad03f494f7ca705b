package org.dmf.classifier

import org.json.JSONArray
import org.json.JSONException
import java.io.File

/**
 * What an artifact must answer for a few images, cropped and not yet normalised.
 *
 * By image: [logits] of the float64 reference, (classes) each; [budgets], by how much a logit may differ from them;
 * [names]. [frozenLogits] are those of a network that routes every image like the first one; null where unknown.
 */
class Golden(
    val images: List<Pixels>,
    val logits: List<DoubleArray>,
    val budgets: DoubleArray,
    val frozenLogits: List<DoubleArray>?,
    val names: List<String>,
) {
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
            val frozenLogits =
                if (FROZEN_LOGITS in tensors) rows(file, tensors, FROZEN_LOGITS, count, manifest.classes) else null
            return Golden(
                pixels(images),
                rows(file, tensors, "logits", count, manifest.classes),
                budgets(file, tensors, count),
                frozenLogits,
                names(file, tensors, count),
            )
        }
    }
}

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
    val tensor = tensors.tensor(name, "F64", rank = 2)
    check(file, name, tensor.shape, listOf(count, classes))
    val data = tensor.data.asDoubleBuffer()
    return List(count) { DoubleArray(classes).also { data.get(it) } }
        .onEach { row -> if (!row.all { it.isFinite() }) throw damaged(file.name, "$name are not all finite") }
}

private fun budgets(
    file: File,
    tensors: SafeTensors,
    count: Int,
): DoubleArray {
    val tensor = tensors.tensor("budgets", "F64", rank = 1)
    check(file, "budgets", tensor.shape, listOf(count))
    return DoubleArray(count)
        .also { tensor.data.asDoubleBuffer().get(it) }
        .also { budgets ->
            if (!budgets.all { it >= 0 && it.isFinite() }) throw damaged(file.name, "budgets must be >= 0")
        }
}

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
