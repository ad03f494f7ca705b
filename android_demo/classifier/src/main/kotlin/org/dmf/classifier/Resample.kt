package org.dmf.classifier

import kotlin.math.abs
import kotlin.math.ceil

/**
 * [image] at [width] x [height], bit for bit as Pillow 13 resizes 8-bit images.
 *
 * One pass along the rows, then one along the columns, or the other way round where more than twice as many rows go as
 * columns; rounded and clipped to uint8 after each. Where it shrinks, the filter is as much wider, so that no source
 * pixel is skipped.
 */
fun resample(
    image: Pixels,
    width: Int,
    height: Int,
    interpolation: Interpolation,
): Pixels {
    fun rows(from: Pixels) =
        if (width == image.width) from else alongRows(from, Kernels(image.width, width, interpolation))

    fun columns(from: Pixels) =
        if (height == image.height) from else alongColumns(from, Kernels(image.height, height, interpolation))
    val lostRows = image.height - height
    val columnsFirst = lostRows > 0 && lostRows > 2 * (image.width - width)
    return if (columnsFirst) rows(columns(image)) else columns(rows(image))
}

private const val PRECISION_BITS = 22
private const val HALF = 1 shl (PRECISION_BITS - 1)
private const val BICUBIC_A = -0.5

/** For each of [outSize] pixels, where its source pixels begin and their weights in fixed point. */
private class Kernels(
    inSize: Int,
    val outSize: Int,
    interpolation: Interpolation,
) {
    val starts = IntArray(outSize)
    val weights: Array<IntArray>

    init {
        val scale = inSize.toDouble() / outSize
        val filterScale = maxOf(scale, 1.0)
        val support = radius(interpolation) * filterScale
        val inverse = 1.0 / filterScale
        weights =
            Array(outSize) { index ->
                val centre = (index + 0.5) * scale
                val start = (centre - support + 0.5).toInt().coerceAtLeast(0)
                val end = (centre + support + 0.5).toInt().coerceAtMost(inSize)
                starts[index] = start
                fixedPoint(
                    DoubleArray(end - start) { weight(interpolation, (it + start - centre + 0.5) * inverse) },
                )
            }
    }
}

private fun radius(interpolation: Interpolation): Double =
    when (interpolation) {
        Interpolation.BILINEAR -> 1.0
        Interpolation.BICUBIC -> 2.0
    }

private fun weight(
    interpolation: Interpolation,
    offset: Double,
): Double {
    val x = abs(offset)
    return when (interpolation) {
        Interpolation.BILINEAR -> {
            if (x < 1) 1 - x else 0.0
        }

        Interpolation.BICUBIC -> {
            when {
                x < 1 -> ((BICUBIC_A + 2) * x - (BICUBIC_A + 3)) * x * x + 1
                x < 2 -> (((x - 5) * x + 8) * x - 4) * BICUBIC_A
                else -> 0.0
            }
        }
    }
}

private fun fixedPoint(weights: DoubleArray): IntArray {
    val sum = weights.sum()
    return IntArray(weights.size) { index ->
        val scaled = weights[index] / sum * (1 shl PRECISION_BITS)
        (if (scaled < 0) scaled - 0.5 else scaled + 0.5).toInt()
    }
}

private fun alongRows(
    image: Pixels,
    kernels: Kernels,
): Pixels {
    val out = ByteArray(kernels.outSize * image.height * Pixels.CHANNELS)
    var next = 0
    for (y in 0 until image.height) {
        for (x in 0 until kernels.outSize) {
            val first = (y * image.width + kernels.starts[x]) * Pixels.CHANNELS
            for (channel in 0 until Pixels.CHANNELS) {
                out[next++] = weighted(image.rgb, first + channel, Pixels.CHANNELS, kernels.weights[x])
            }
        }
    }
    return Pixels(kernels.outSize, image.height, out)
}

private fun alongColumns(
    image: Pixels,
    kernels: Kernels,
): Pixels {
    val rowBytes = image.width * Pixels.CHANNELS
    val out = ByteArray(rowBytes * kernels.outSize)
    var next = 0
    for (y in 0 until kernels.outSize) {
        val first = kernels.starts[y] * rowBytes
        for (column in 0 until rowBytes) {
            out[next++] = weighted(image.rgb, first + column, rowBytes, kernels.weights[y])
        }
    }
    return Pixels(image.width, kernels.outSize, out)
}

private fun weighted(
    bytes: ByteArray,
    first: Int,
    stride: Int,
    weights: IntArray,
): Byte {
    var sum = HALF
    var position = first
    for (weight in weights) {
        sum += (bytes[position].toInt() and 0xff) * weight
        position += stride
    }
    return (sum shr PRECISION_BITS).coerceIn(0, 255).toByte()
}
