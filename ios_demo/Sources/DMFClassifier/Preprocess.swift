/// What a model takes of one picture: the manifest's `inputs[0].dtype` says which.
public enum ModelInput: Equatable, Sendable {
    /// Normalised, (1, 3, H, W) or (1, H, W, 3) as the layout says.
    case tensor([Float])
    /// As it is, (H, W): the graph normalises.
    case image(Pixels)
}

/// From a picture to the model's input, bit for bit as `runtime/preprocess.py` computes it.
public enum Preprocess {
    /// ``fit(_:_:)`` and ``input(of:_:)`` in one.
    public static func toInput(_ image: Pixels, _ spec: InputSpec) throws -> ModelInput {
        input(of: try fit(image, spec), spec)
    }

    /// The input of a picture that is cropped or padded.
    public static func input(of image: Pixels, _ spec: InputSpec) -> ModelInput {
        switch spec.dtype {
        case .float32: .tensor(normalise(image, spec))
        case .image: .image(image)
        }
    }

    /// The upright `image` at the size of the input.
    ///
    /// PackageError: it is smaller than the crop once resized.
    public static func fit(_ image: Pixels, _ spec: InputSpec) throws -> Pixels {
        let size = spec.resized(width: image.width, height: image.height)
        if case .crop(let resize) = spec.fit, size.width < spec.cropWidth || size.height < spec.cropHeight {
            throw PackageError(
                "the picture is \(size.width) x \(size.height) px once resized to \(resize), "
                    + "smaller than the crop of \(spec.cropWidth) x \(spec.cropHeight); give a wider or a taller one"
            )
        }
        let resized = image.resampled(width: size.width, height: size.height, interpolation: spec.interpolation)
        return spec.fit == .pad ? padded(resized, spec) : cropped(resized, spec)
    }

    /// Its centre.
    private static func cropped(_ image: Pixels, _ spec: InputSpec) -> Pixels {
        let left = centred(spec.cropWidth, in: image.width)
        let top = centred(spec.cropHeight, in: image.height)
        var rgb: [UInt8] = []
        rgb.reserveCapacity(spec.cropHeight * spec.cropWidth * Pixels.channels)
        for row in top..<top + spec.cropHeight {
            let first = (row * image.width + left) * Pixels.channels
            rgb += image.rgb[first..<first + spec.cropWidth * Pixels.channels]
        }
        return Pixels(width: spec.cropWidth, height: spec.cropHeight, rgb: rgb)
    }

    /// In the top left corner of the mean colour, whose halves Python rounds to even.
    private static func padded(_ image: Pixels, _ spec: InputSpec) -> Pixels {
        let colour = spec.mean.map { UInt8(clamping: Int((255 * $0).rounded(.toNearestOrEven))) }
        let margin = [[UInt8]](repeating: colour, count: spec.cropWidth - image.width).flatMap { $0 }
        let below = [[UInt8]](repeating: colour, count: spec.cropWidth).flatMap { $0 }
        var rgb: [UInt8] = []
        rgb.reserveCapacity(spec.cropHeight * spec.cropWidth * Pixels.channels)
        for row in 0..<image.height {
            let first = row * image.width * Pixels.channels
            rgb += image.rgb[first..<first + image.width * Pixels.channels]
            rgb += margin
        }
        for _ in image.height..<spec.cropHeight { rgb += below }
        return Pixels(width: spec.cropWidth, height: spec.cropHeight, rgb: rgb)
    }

    /// `(image / 255 - mean) / std` in float32, or 0..255 as it is where the graph normalises.
    ///
    /// Returns (1, 3, H, W) or (1, H, W, 3), as the layout says. Traps where `image` is of another size.
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
    fileprivate static func centred(_ crop: Int, in size: Int) -> Int {
        Int((Double(size - crop) / 2).rounded(.toNearestOrEven))
    }
}

extension InputSpec {
    /// What a picture of `width` x `height` px is scaled to before it is cropped or padded.
    public func resized(width: Int, height: Int) -> (width: Int, height: Int) {
        switch fit {
        case .crop(let resize):
            let shorter = min(width, height)
            return (resize * width / shorter, resize * height / shorter)
        case .pad where cropHeight * width <= cropWidth * height: // the height is what fills it
            return (max(1, width * cropHeight / height), cropHeight)
        case .pad:
            return (cropWidth, max(1, height * cropWidth / width))
        }
    }

    /// Where a box of the input lies in the picture of `width` x `height` px that became it, as far as it is in there.
    public func inPicture(_ box: Box, width: Int, height: Int) -> Box {
        let resized = resized(width: width, height: height)
        let isCropped = fit != .pad
        let left = isCropped ? Preprocess.centred(cropWidth, in: resized.width) : 0
        let top = isCropped ? Preprocess.centred(cropHeight, in: resized.height) : 0
        func place(_ position: Double, _ start: Int, _ side: Int, _ resizedSide: Int) -> Double {
            min(max((position + Double(start)) * Double(side) / Double(resizedSide), 0), Double(side))
        }
        return Box(
            x1: place(box.x1, left, width, resized.width), y1: place(box.y1, top, height, resized.height),
            x2: place(box.x2, left, width, resized.width), y2: place(box.y2, top, height, resized.height)
        )
    }
}
