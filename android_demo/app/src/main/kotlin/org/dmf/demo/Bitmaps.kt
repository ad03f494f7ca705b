package org.dmf.demo

import android.graphics.Bitmap
import org.dmf.classifier.Pixels

/** The pixels of a bitmap, turned. */
fun Bitmap.upright(turn: Turn): Pixels {
    val rgb = ByteArray(width * height * Pixels.CHANNELS)
    val path = turn.path(width, height)
    val row = IntArray(width)
    for (y in 0 until height) {
        getPixels(row, 0, width, 0, y, width, 1)
        for (x in 0 until width) {
            val out = (path.first + x * path.stepX + y * path.stepY) * Pixels.CHANNELS
            rgb[out] = (row[x] shr 16).toByte()
            rgb[out + 1] = (row[x] shr 8).toByte()
            rgb[out + 2] = row[x].toByte()
        }
    }
    return Pixels(turn.width(width, height), turn.height(width, height), rgb)
}

/** A bitmap for the screen: of a picture larger than [maxSide], every second, third, ... pixel. */
fun Pixels.toBitmap(maxSide: Int): Bitmap {
    val step = (maxOf(width, height) + maxSide - 1) / maxSide
    val shownWidth = maxOf(width / step, 1)
    val shownHeight = maxOf(height / step, 1)
    val colours =
        IntArray(shownWidth * shownHeight) {
            val first = (it / shownWidth * step * width + it % shownWidth * step) * Pixels.CHANNELS
            OPAQUE or (level(first) shl 16) or (level(first + 1) shl 8) or level(first + 2)
        }
    return Bitmap.createBitmap(colours, shownWidth, shownHeight, Bitmap.Config.ARGB_8888)
}

private const val OPAQUE = 0xff shl 24

private fun Pixels.level(index: Int): Int = rgb[index].toInt() and 0xff
