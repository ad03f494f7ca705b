package org.dmf.demo

import android.content.ContentResolver
import android.graphics.BitmapFactory
import android.media.ExifInterface
import android.net.Uri
import org.dmf.classifier.Pixels
import java.io.FileNotFoundException
import java.io.IOException
import java.io.InputStream

/** A picture that a person chose. */
class PictureFile(
    private val resolver: ContentResolver,
    private val uri: Uri,
) {
    /**
     * The upright picture for a model that resizes the shorter side to [resize] px.
     *
     * It is decoded whole, but for a JPEG of more than 16 megapixels: that is halved until it is so small, as long as
     * its shorter side keeps 4 x [resize] px. The JPEG decoder averages; those of other formats would skip pixels.
     * README.md has by how much it changes the input. IOException: not to be read.
     */
    fun read(resize: Int): Pixels {
        val size = BitmapFactory.Options().apply { inJustDecodeBounds = true }
        open().use { BitmapFactory.decodeStream(it, null, size) }
        if (size.outWidth <= 0 || size.outHeight <= 0) throw notDecoded()
        val options =
            BitmapFactory.Options().apply {
                if (size.outMimeType == "image/jpeg") {
                    inSampleSize = sampleSize(size.outWidth, size.outHeight, resize)
                }
            }
        val turn = turn()
        val bitmap = open().use { BitmapFactory.decodeStream(it, null, options) } ?: throw notDecoded()
        return try {
            bitmap.upright(turn)
        } finally {
            bitmap.recycle()
        }
    }

    /** Formats without EXIF, and damaged EXIF, say nothing of the orientation. */
    private fun turn(): Turn {
        val exif = attempt { open().use { ExifInterface(it) } }.getOrNull()
        return exifTurn(exif?.getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL))
    }

    private fun open(): InputStream {
        val stream = resolver.openInputStream(uri)
        return stream ?: throw FileNotFoundException("the picture is gone")
    }

    private fun notDecoded() = IOException("this file is no picture that Android can decode; choose another")
}

private const val MAX_PIXELS = 16_000_000L
private const val MIN_SIDE_PER_RESIZE = 4L

/** A power of two, as BitmapFactory has it. */
fun sampleSize(
    width: Int,
    height: Int,
    resize: Int,
): Int {
    val shorter = minOf(width, height)
    var size = 1
    while (
        width.toLong() * height / (size * size) > MAX_PIXELS &&
        shorter / (2 * size) >= MIN_SIDE_PER_RESIZE * resize
    ) {
        size *= 2
    }
    return size
}

fun exifTurn(orientation: Int?): Turn =
    when (orientation) {
        ExifInterface.ORIENTATION_FLIP_HORIZONTAL -> Turn(0, mirrored = true)
        ExifInterface.ORIENTATION_ROTATE_180 -> Turn(2)
        ExifInterface.ORIENTATION_FLIP_VERTICAL -> Turn(2, mirrored = true)
        ExifInterface.ORIENTATION_TRANSPOSE -> Turn(3, mirrored = true)
        ExifInterface.ORIENTATION_ROTATE_90 -> Turn(1)
        ExifInterface.ORIENTATION_TRANSVERSE -> Turn(1, mirrored = true)
        ExifInterface.ORIENTATION_ROTATE_270 -> Turn(3)
        else -> Turn(0)
    }
