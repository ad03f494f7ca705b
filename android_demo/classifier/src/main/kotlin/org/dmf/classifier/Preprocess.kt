package org.dmf.classifier

/** From a picture to the model's input, bit for bit as `runtime/preprocess.py` computes it. */
object Preprocess {
    /** [crop] and [normalise] in one. */
    fun toInput(
        image: Pixels,
        spec: InputSpec,
    ): FloatArray = normalise(crop(image, spec), spec)

    /**
     * The upright [image] with its shorter side resized to `spec.resize` px, then its centre.
     *
     * PackageError: it is smaller than the crop once resized.
     */
    fun crop(
        image: Pixels,
        spec: InputSpec,
    ): Pixels {
        val shorter = minOf(image.width, image.height)
        val width = (spec.resize.toLong() * image.width / shorter).toInt()
        val height = (spec.resize.toLong() * image.height / shorter).toInt()
        if (spec.cropWidth > width || spec.cropHeight > height) {
            throw PackageError(
                "the picture is $width x $height px once resized to ${spec.resize}, " +
                    "smaller than the crop of ${spec.cropWidth} x ${spec.cropHeight}; give a wider or a taller one",
            )
        }
        val resized = resample(image, width, height, spec.interpolation)
        return crop(resized, centred(width, spec.cropWidth), centred(height, spec.cropHeight), spec)
    }

    /**
     * `(image / 255 - mean) / std` in float32, or 0..255 as it is where the graph normalises.
     *
     * Returns (1, 3, H, W) or (1, H, W, 3), as the layout says. IllegalArgumentException: [image] is not cropped.
     */
    fun normalise(
        image: Pixels,
        spec: InputSpec,
    ): FloatArray {
        require(image.width == spec.cropWidth && image.height == spec.cropHeight) {
            "the picture is ${image.width} x ${image.height} px, the input ${spec.cropWidth} x ${spec.cropHeight}"
        }
        val (pixelStride, channelStride) =
            when (spec.layout) {
                Layout.NCHW -> 1 to image.width * image.height
                Layout.NHWC -> Pixels.CHANNELS to 1
            }
        val input = FloatArray(image.rgb.size)
        for (channel in 0 until Pixels.CHANNELS) {
            val values = FloatArray(256) { value(it, channel, spec) }
            for (pixel in 0 until image.width * image.height) {
                val byte = image.rgb[pixel * Pixels.CHANNELS + channel].toInt() and 0xff
                input[pixel * pixelStride + channel * channelStride] = values[byte]
            }
        }
        return input
    }

    private fun value(
        byte: Int,
        channel: Int,
        spec: InputSpec,
    ): Float =
        if (spec.normalisationInGraph) {
            byte.toFloat()
        } else {
            (byte / 255f - spec.mean[channel].toFloat()) /
                spec.std[channel].toFloat()
        }

    private fun crop(
        image: Pixels,
        left: Int,
        top: Int,
        spec: InputSpec,
    ): Pixels {
        val rowBytes = spec.cropWidth * Pixels.CHANNELS
        val out = ByteArray(rowBytes * spec.cropHeight)
        for (y in 0 until spec.cropHeight) {
            val first = ((top + y) * image.width + left) * Pixels.CHANNELS
            image.rgb.copyInto(out, y * rowBytes, first, first + rowBytes)
        }
        return Pixels(spec.cropWidth, spec.cropHeight, out)
    }

    /** Where a crop begins; Python rounds halves to even, and so does rint. */
    private fun centred(
        size: Int,
        crop: Int,
    ): Int = Math.rint((size - crop) / 2.0).toInt()
}
