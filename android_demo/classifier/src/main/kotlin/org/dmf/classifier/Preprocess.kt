package org.dmf.classifier

/**
 * Where a picture lies under the network's input, once it is resized to [width] x [height] px.
 *
 * Its pixel ([left], [top]) is then the input's first.
 */
data class Placement(
    val width: Int,
    val height: Int,
    val left: Int,
    val top: Int,
) {
    /** A [box] of the input in shares of the picture's width and height, 0..1; what lies outside it is cut off. */
    fun toPicture(box: Box): Box =
        Box(
            share(box.left + left, width),
            share(box.top + top, height),
            share(box.right + left, width),
            share(box.bottom + top, height),
        )

    private fun share(
        position: Double,
        size: Int,
    ): Double = (position / size).coerceIn(0.0, 1.0)
}

/** From a picture to the model's input, bit for bit as `runtime/preprocess.py` computes it. */
object Preprocess {
    /** [fit] and [normalise] in one. */
    fun toInput(
        image: Pixels,
        spec: InputSpec,
    ): FloatArray = normalise(fit(image, spec), spec)

    /** Where a picture of [width] x [height] px lies. PackageError: it is smaller than the crop once resized. */
    fun placement(
        width: Int,
        height: Int,
        spec: InputSpec,
    ): Placement =
        when (spec.fit) {
            is Fit.Crop -> cropped(width, height, spec.fit.resize, spec)
            Fit.Pad -> padded(width, height, spec)
        }

    /** The upright [image], resized, and cropped or padded. PackageError: as above. */
    fun fit(
        image: Pixels,
        spec: InputSpec,
    ): Pixels {
        val place = placement(image.width, image.height, spec)
        val resized = resample(image, place.width, place.height, spec.interpolation)
        val out = background(spec)
        val rowBytes = minOf(spec.cropWidth, place.width) * Pixels.CHANNELS
        for (y in 0 until minOf(spec.cropHeight, place.height)) {
            val first = ((place.top + y) * place.width + place.left) * Pixels.CHANNELS
            resized.rgb.copyInto(out.rgb, y * spec.cropWidth * Pixels.CHANNELS, first, first + rowBytes)
        }
        return out
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

    private fun cropped(
        width: Int,
        height: Int,
        resize: Int,
        spec: InputSpec,
    ): Placement {
        val shorter = minOf(width, height)
        val resizedWidth = scaled(width, resize, shorter)
        val resizedHeight = scaled(height, resize, shorter)
        if (spec.cropWidth > resizedWidth || spec.cropHeight > resizedHeight) {
            throw PackageError(
                "the picture is $resizedWidth x $resizedHeight px once resized to $resize, " +
                    "smaller than the crop of ${spec.cropWidth} x ${spec.cropHeight}; give a wider or a taller one",
            )
        }
        val left = centred(resizedWidth, spec.cropWidth)
        return Placement(resizedWidth, resizedHeight, left, centred(resizedHeight, spec.cropHeight))
    }

    /** One of its sides fills the input. */
    private fun padded(
        width: Int,
        height: Int,
        spec: InputSpec,
    ): Placement {
        val fillsHeight = spec.cropHeight.toLong() * width <= spec.cropWidth.toLong() * height
        return if (fillsHeight) {
            Placement(maxOf(1, scaled(width, spec.cropHeight, height)), spec.cropHeight, 0, 0)
        } else {
            Placement(spec.cropWidth, maxOf(1, scaled(height, spec.cropWidth, width)), 0, 0)
        }
    }

    private fun scaled(
        side: Int,
        to: Int,
        from: Int,
    ): Int = (to.toLong() * side / from).toInt()

    /** A picture of the mean colour. */
    private fun background(spec: InputSpec): Pixels {
        val colour = ByteArray(Pixels.CHANNELS) { rounded(255 * spec.mean[it]).toByte() }
        val rgb = ByteArray(spec.cropWidth * spec.cropHeight * Pixels.CHANNELS) { colour[it % Pixels.CHANNELS] }
        return Pixels(spec.cropWidth, spec.cropHeight, rgb)
    }

    /** Where a crop begins. */
    private fun centred(
        size: Int,
        crop: Int,
    ): Int = rounded((size - crop) / 2.0)

    /** Python rounds halves to even, and so does rint. */
    private fun rounded(value: Double): Int = Math.rint(value).toInt()
}
