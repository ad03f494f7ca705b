/// The layout of a camera's frames and of image inputs on Apple's systems: four bytes a pixel, blue first, alpha last.
extension Pixels {
    private static let bgraChannels = 4

    /// A picture of which row `y` begins at byte `y * bytesPerRow` of `bgra`; what follows a row is skipped.
    public init(bgra: UnsafeRawBufferPointer, width: Int, height: Int, bytesPerRow: Int) {
        var rgb: [UInt8] = []
        rgb.reserveCapacity(width * height * Pixels.channels)
        for row in 0..<height {
            for column in 0..<width {
                let pixel = row * bytesPerRow + column * Pixels.bgraChannels
                rgb.append(bgra[pixel + 2])
                rgb.append(bgra[pixel + 1])
                rgb.append(bgra[pixel])
            }
        }
        self.init(width: width, height: height, rgb: rgb)
    }

    /// Writes the picture, opaque, with row `y` beginning at byte `y * bytesPerRow` of `bgra`.
    public func write(bgra: UnsafeMutableRawBufferPointer, bytesPerRow: Int) {
        for row in 0..<height {
            for column in 0..<width {
                let source = (row * width + column) * Pixels.channels
                let pixel = row * bytesPerRow + column * Pixels.bgraChannels
                bgra[pixel] = rgb[source + 2]
                bgra[pixel + 1] = rgb[source + 1]
                bgra[pixel + 2] = rgb[source]
                bgra[pixel + 3] = .max
            }
        }
    }
}
