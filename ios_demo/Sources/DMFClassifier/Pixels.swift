/// An upright picture: `rgb` is uint8 (height, width, 3), row by row.
public struct Pixels: Equatable, Sendable {
    public static let channels = 3

    public let width: Int
    public let height: Int
    public let rgb: [UInt8]

    /// Traps where `rgb` is not as long as the size says.
    public init(width: Int, height: Int, rgb: [UInt8]) {
        let bytes = width * height * Pixels.channels
        precondition(rgb.count == bytes, "\(width) x \(height) px take \(bytes) bytes, not \(rgb.count)")
        self.width = width
        self.height = height
        self.rgb = rgb
    }
}
