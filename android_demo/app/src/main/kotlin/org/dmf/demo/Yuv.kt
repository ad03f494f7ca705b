package org.dmf.demo

import org.dmf.classifier.Pixels

/** One plane of a camera's frame: the value at (x, y) is `bytes[y * rowStride + x * pixelStride]`, 0..255. */
class Plane(
    val bytes: ByteArray,
    val rowStride: Int,
    val pixelStride: Int,
) {
    fun value(
        x: Int,
        y: Int,
    ): Int = bytes[y * rowStride + x * pixelStride].toInt() and 0xff
}

/**
 * The upright RGB picture of a frame in Android's YUV_420_888.
 *
 * [luma] is (height, width), [blue] and [red] differences are (height / 2, width / 2): BT.601 of the full range, as JFIF.
 */
fun uprightRgb(
    width: Int,
    height: Int,
    luma: Plane,
    blue: Plane,
    red: Plane,
    turn: Turn,
): Pixels {
    val rgb = ByteArray(width * height * Pixels.CHANNELS)
    val path = turn.path(width, height)
    for (y in 0 until height) {
        for (x in 0 until width) {
            val grey = (luma.value(x, y) shl BITS) + HALF
            val u = blue.value(x / 2, y / 2) - 128
            val v = red.value(x / 2, y / 2) - 128
            val out = (path.first + x * path.stepX + y * path.stepY) * Pixels.CHANNELS
            rgb[out] = byte(grey + RED_OF_V * v)
            rgb[out + 1] = byte(grey - GREEN_OF_U * u - GREEN_OF_V * v)
            rgb[out + 2] = byte(grey + BLUE_OF_U * u)
        }
    }
    return Pixels(turn.width(width, height), turn.height(width, height), rgb)
}

private const val BITS = 16
private const val HALF = 1 shl (BITS - 1)
private const val RED_OF_V = 91881 // 1.402 x 2^16
private const val GREEN_OF_U = 22554 // 0.344136
private const val GREEN_OF_V = 46802 // 0.714136
private const val BLUE_OF_U = 116130 // 1.772

private fun byte(fixedPoint: Int): Byte = (fixedPoint shr BITS).coerceIn(0, 255).toByte()
