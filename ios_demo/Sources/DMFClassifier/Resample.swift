extension Pixels {
    /// This picture at `width` x `height`, bit for bit as Pillow 13 resizes 8-bit images.
    ///
    /// One pass along the rows, then one along the columns, rounded and clipped to uint8 after each; the other way
    /// round where far more rows than columns are lost, as Pillow does since 13, for speed. Where it shrinks, the
    /// filter is as much wider, so that no source pixel is skipped.
    public func resampled(width: Int, height: Int, interpolation: Interpolation) -> Pixels {
        let isLower = self.height - height > max(2 * (self.width - width), 0)
        return isLower
            ? ofHeight(height, interpolation).ofWidth(width, interpolation)
            : ofWidth(width, interpolation).ofHeight(height, interpolation)
    }

    private func ofWidth(_ width: Int, _ interpolation: Interpolation) -> Pixels {
        width == self.width ? self : alongRows(kernels(from: self.width, to: width, interpolation))
    }

    private func ofHeight(_ height: Int, _ interpolation: Interpolation) -> Pixels {
        height == self.height ? self : alongColumns(kernels(from: self.height, to: height, interpolation))
    }

    private func alongRows(_ kernels: [Kernel]) -> Pixels {
        let resized = filled(kernels.count * height * Pixels.channels) { source, out in
            var next = 0
            for row in 0..<height {
                for kernel in kernels {
                    let first = (row * width + kernel.start) * Pixels.channels
                    for channel in 0..<Pixels.channels {
                        out[next] = kernel.sum(source + first + channel, stride: Pixels.channels)
                        next += 1
                    }
                }
            }
        }
        return Pixels(width: kernels.count, height: height, rgb: resized)
    }

    private func alongColumns(_ kernels: [Kernel]) -> Pixels {
        let rowBytes = width * Pixels.channels
        let resized = filled(rowBytes * kernels.count) { source, out in
            var next = 0
            for kernel in kernels {
                for column in 0..<rowBytes {
                    out[next] = kernel.sum(source + kernel.start * rowBytes + column, stride: rowBytes)
                    next += 1
                }
            }
        }
        return Pixels(width: width, height: kernels.count, rgb: resized)
    }

    /// `bytes` bytes that `fill` makes of `rgb`, by pointers, for this is what a camera's frame waits for.
    private func filled(
        _ bytes: Int, _ fill: (UnsafePointer<UInt8>, UnsafeMutablePointer<UInt8>) -> Void
    ) -> [UInt8] {
        var out = [UInt8](repeating: 0, count: bytes)
        out.withUnsafeMutableBufferPointer { out in
            rgb.withUnsafeBufferPointer { source in
                if let source = source.baseAddress, let out = out.baseAddress { fill(source, out) }
            }
        }
        return out
    }
}

/// One new pixel's source pixels: where they begin, and their weights in fixed point.
private struct Kernel {
    static let precisionBits = 22

    let start: Int
    let weights: [Int]

    init(start: Int, weights: [Double]) {
        let total = weights.reduce(0, +)
        self.start = start
        self.weights = weights.map { weight in
            let scaled = weight / total * Double(1 << Kernel.precisionBits)
            return Int(scaled < 0 ? scaled - 0.5 : scaled + 0.5)
        }
    }

    /// Of the source pixels from `first` on, `stride` bytes apart, rounded and clipped.
    func sum(_ first: UnsafePointer<UInt8>, stride: Int) -> UInt8 {
        weights.withUnsafeBufferPointer { weights in
            var sum = 1 << (Kernel.precisionBits - 1)
            var position = first
            var index = 0
            while index < weights.count {
                sum &+= Int(position.pointee) &* weights[index]
                position += stride
                index += 1
            }
            return UInt8(clamping: sum >> Kernel.precisionBits)
        }
    }
}

private func kernels(from inSize: Int, to outSize: Int, _ interpolation: Interpolation) -> [Kernel] {
    let scale = Double(inSize) / Double(outSize)
    let filterScale = max(scale, 1)
    let support = interpolation.radius * filterScale
    let inverse = 1 / filterScale
    return (0..<outSize).map { index in
        let centre = (Double(index) + 0.5) * scale
        let start = max(Int(centre - support + 0.5), 0)
        let end = min(Int(centre + support + 0.5), inSize)
        let weights = (start..<end).map { interpolation.weight((Double($0) - centre + 0.5) * inverse) }
        return Kernel(start: start, weights: weights)
    }
}

extension Interpolation {
    fileprivate var radius: Double {
        switch self {
        case .bilinear: 1
        case .bicubic: 2
        }
    }

    fileprivate func weight(_ offset: Double) -> Double {
        let bicubicA = -0.5
        let distance = abs(offset)
        switch self {
        case .bilinear:
            return distance < 1 ? 1 - distance : 0
        case .bicubic where distance < 1:
            return ((bicubicA + 2) * distance - (bicubicA + 3)) * distance * distance + 1
        case .bicubic:
            return distance < 2 ? (((distance - 5) * distance + 8) * distance - 4) * bicubicA : 0
        }
    }
}
