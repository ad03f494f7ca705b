package org.dmf.classifier

import org.json.JSONException
import org.json.JSONObject
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** The tensors of a safetensors file and its [metadata]. */
class SafeTensors private constructor(
    val metadata: Map<String, String>,
    private val tensors: Map<String, Tensor>,
    private val source: String,
) {
    /** [data] is little-endian, row by row, and exactly as long as [shape] and [dtype] need. */
    class Tensor(
        val dtype: String,
        val shape: List<Int>,
        private val bytes: ByteBuffer,
    ) {
        val data: ByteBuffer get() = bytes.duplicate().order(ByteOrder.LITTLE_ENDIAN)
    }

    operator fun contains(name: String): Boolean = name in tensors

    /** PackageError: no tensor [name], or one of another type or number of dimensions. */
    fun tensor(
        name: String,
        dtype: String,
        rank: Int,
    ): Tensor {
        val tensor = tensors[name] ?: throw damaged(source, "it has no tensor $name")
        if (tensor.dtype != dtype || tensor.shape.size != rank) {
            throw damaged(source, "$name is ${tensor.dtype} ${tensor.shape}, must be $dtype of $rank dimensions")
        }
        return tensor
    }

    companion object {
        /** PackageError: damaged, or no safetensors file. */
        fun read(file: File): SafeTensors = parse(file.readBytes(), file.name)

        private fun parse(
            content: ByteArray,
            source: String,
        ): SafeTensors {
            val available = content.size - Long.SIZE_BYTES
            if (available < 0) throw damaged(source, "it ends in the length of its header")
            val headerBytes = ByteBuffer.wrap(content).order(ByteOrder.LITTLE_ENDIAN).long
            if (headerBytes !in 0..available) {
                throw damaged(source, "its header is $headerBytes bytes long, $available are there")
            }
            val dataStart = Long.SIZE_BYTES + headerBytes.toInt()
            val header = parseObject(content.decodeToString(Long.SIZE_BYTES, dataStart), source)
            return try {
                SafeTensors(metadata(header), tensors(header, content, dataStart, source), source)
            } catch (error: JSONException) {
                throw damaged(source, "its header: ${error.oneLine()}", error)
            }
        }
    }
}

internal fun damaged(
    source: String,
    problem: String,
    cause: Throwable? = null,
) = PackageError("$source: $problem; $EXPORT_AGAIN", cause)

private const val METADATA = "__metadata__"
private const val TOO_LONG = 1L shl Int.SIZE_BITS // for a file that fits into an array, and no overflow times an Int
private val DTYPE_BYTES =
    mapOf("U8" to 1, "F32" to Float.SIZE_BYTES, "F64" to Double.SIZE_BYTES, "I64" to Long.SIZE_BYTES)

private fun metadata(header: JSONObject): Map<String, String> {
    val metadata = header.optJSONObject(METADATA) ?: return emptyMap()
    return metadata.keys().asSequence().associateWith { metadata.getString(it) }
}

private class Entry(
    val name: String,
    val dtype: String,
    val shape: List<Int>,
    val begin: Int,
    val end: Int,
)

private fun tensors(
    header: JSONObject,
    content: ByteArray,
    dataStart: Int,
    source: String,
): Map<String, SafeTensors.Tensor> {
    val names = header.keys().asSequence().filter { it != METADATA }
    val entries = names.map { entry(it, header.getJSONObject(it), source) }.sortedBy { it.begin }.toList()
    var expected = 0
    for (entry in entries) {
        if (entry.begin != expected) {
            throw damaged(source, "${entry.name} begins at byte ${entry.begin}, the tensor before it ends at $expected")
        }
        expected = entry.end
    }
    val available = content.size - dataStart
    if (expected != available) {
        throw damaged(source, "its tensors take $expected bytes, $available are there")
    }
    return entries.associate { entry ->
        val bytes = ByteBuffer.wrap(content, dataStart + entry.begin, entry.end - entry.begin).slice()
        entry.name to SafeTensors.Tensor(entry.dtype, entry.shape, bytes)
    }
}

private fun entry(
    name: String,
    json: JSONObject,
    source: String,
): Entry {
    val dtype = json.getString("dtype")
    val itemBytes =
        DTYPE_BYTES[dtype]
            ?: throw damaged(source, "$name is $dtype, this app reads ${DTYPE_BYTES.keys.joinToString()}")
    val shape = json.getJSONArray("shape").let { array -> List(array.length()) { array.getInt(it) } }
    val (begin, end) = json.getJSONArray("data_offsets").let { it.getInt(0) to it.getInt(1) }
    val size = shape.fold(itemBytes.toLong()) { bytes, side -> (bytes * side).coerceAtMost(TOO_LONG) }
    if (shape.any { it < 0 } || begin < 0 || end.toLong() - begin != size) {
        throw damaged(source, "$name $dtype $shape takes $size bytes, not those from $begin to $end")
    }
    return Entry(name, dtype, shape, begin, end)
}
