/// What a model takes of one picture: the manifest's `inputs[0].dtype` says which.
public enum ModelInput: Equatable, Sendable {
    /// Normalised, (1, 3, H, W) or (1, H, W, 3) as the layout says.
    case tensor([Float])
    /// As it is, (H, W): the graph normalises.
    case image(Pixels)
}

/// From a picture to the model's input, bit for bit as `runtime/preprocess.py` computes it.
public enum Preprocess {
    /// ``crop(_:_:)`` and ``input(of:_:)`` in one.
    public static func toInput(_ image: Pixels, _ spec: InputSpec) throws -> ModelInput {
        input(of: try crop(image, spec), spec)
    }

    /// The input of a picture that is cropped.
    public static func input(of image: Pixels, _ spec: InputSpec) -> ModelInput {
        switch spec.dtype {
        case .float32: .tensor(normalise(image, spec))
        case .image: .image(image)
        }
    }

    /// The upright `image` with its shorter side resized to `spec.resize` px, then its centre.
    ///
    /// PackageError: it is smaller than the crop once resized.
    public static func crop(_ image: Pixels, _ spec: InputSpec) throws -> Pixels {
        let shorter = min(image.width, image.height)
        let width = spec.resize * image.width / shorter
        let height = spec.resize * image.height / shorter
        guard spec.cropWidth <= width, spec.cropHeight <= height else {
            throw PackageError(
                "the picture is \(width) x \(height) px once resized to \(spec.resize), "
                    + "smaller than the crop of \(spec.cropWidth) x \(spec.cropHeight); give a wider or a taller one"
            )
        }
        let resized = image.resampled(width: width, height: height, interpolation: spec.interpolation)
        let left = centred(spec.cropWidth, in: width)
        let top = centred(spec.cropHeight, in: height)
        var rgb: [UInt8] = []
        rgb.reserveCapacity(spec.cropHeight * spec.cropWidth * Pixels.channels)
        for row in top..<top + spec.cropHeight {
            let first = (row * width + left) * Pixels.channels
            rgb += resized.rgb[first..<first + spec.cropWidth * Pixels.channels]
        }
        return Pixels(width: spec.cropWidth, height: spec.cropHeight, rgb: rgb)
    }

    /// `(image / 255 - mean) / std` in float32, or 0..255 as it is where the graph normalises.
    ///
    /// Returns (1, 3, H, W) or (1, H, W, 3), as the layout says. Traps where `image` is not cropped.
    public static func normalise(_ image: Pixels, _ spec: InputSpec) -> [Float] {
        precondition(
            image.width == spec.cropWidth && image.height == spec.cropHeight,
            "the picture is \(image.width) x \(image.height) px, the input \(spec.cropWidth) x \(spec.cropHeight)"
        )
        let pixels = image.width * image.height
        let (pixelStride, channelStride) = spec.layout == .nchw ? (1, pixels) : (Pixels.channels, 1)
        var input = [Float](repeating: 0, count: image.rgb.count)
        for channel in 0..<Pixels.channels {
            let values = (0...UInt8.max).map { value($0, channel, spec) }
            for pixel in 0..<pixels {
                let byte = image.rgb[pixel * Pixels.channels + channel]
                input[pixel * pixelStride + channel * channelStride] = values[Int(byte)]
            }
        }
        return input
    }

    private static func value(_ byte: UInt8, _ channel: Int, _ spec: InputSpec) -> Float {
        if spec.normalisationInGraph { return Float(byte) }
        return (Float(byte) / 255 - Float(spec.mean[channel])) / Float(spec.std[channel])
    }

    /// Where a crop begins; Python rounds halves to even.
    private static func centred(_ crop: Int, in size: Int) -> Int {
        Int((Double(size - crop) / 2).rounded(.toNearestOrEven))
    }
}
