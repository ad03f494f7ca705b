package org.dmf.classifier

/** An upright picture: [rgb] is uint8 (height, width, 3), row by row. IllegalArgumentException: another length. */
class Pixels(
    val width: Int,
    val height: Int,
    val rgb: ByteArray,
) {
    init {
        require(rgb.size == width * height * CHANNELS) {
            "$width x $height px take ${width * height * CHANNELS} bytes, not ${rgb.size}"
        }
    }

    companion object {
        const val CHANNELS = 3
    }
}
