import CoreGraphics
import DMFClassifier
import Foundation
import ImageIO

/// The upright picture in an image file, for a model that takes `input`.
///
/// PackageError: not a picture that this system decodes.
func pixels(ofFile data: Data, for input: InputSpec) throws -> Pixels {
    guard let source = CGImageSourceCreateWithData(data as CFData, nil),
          let properties = CGImageSourceCopyPropertiesAtIndex(source, 0, nil) as? [CFString: Any],
          let width = properties[kCGImagePropertyPixelWidth] as? Int,
          let height = properties[kCGImagePropertyPixelHeight] as? Int
    else { throw notDecoded }
    let options: [CFString: Any] = [
        kCGImageSourceCreateThumbnailFromImageAlways: true,
        kCGImageSourceCreateThumbnailWithTransform: true, // upright
        kCGImageSourceThumbnailMaxPixelSize: decodedSide(width: width, height: height, input)
    ]
    guard let decoded = CGImageSourceCreateThumbnailAtIndex(source, 0, options as CFDictionary) else {
        throw notDecoded
    }
    return try pixels(width: decoded.width, height: decoded.height) { context, frame in
        context.draw(decoded, in: frame)
    }
}

private let notDecoded = PackageError("this file is no picture that iOS can decode; choose another")

/// `pixels` as what a screen shows; nil where there is no memory for it.
func image(of pixels: Pixels) -> CGImage? {
    guard let provider = CGDataProvider(data: Data(pixels.rgb) as CFData), let space = sRGB else { return nil }
    return CGImage(
        width: pixels.width, height: pixels.height, bitsPerComponent: 8, bitsPerPixel: 8 * Pixels.channels,
        bytesPerRow: pixels.width * Pixels.channels, space: space,
        bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.none.rawValue), provider: provider, decode: nil,
        shouldInterpolate: true, intent: .defaultIntent
    )
}

extension Drawing {
    /// As a picture of `side` x `side` px. PackageError: there is no memory for it.
    func pixels(side: Int) throws -> Pixels {
        try DMFDemo.pixels(width: side, height: side) { context, frame in
            context.setFillColor(gray: isWhiteOnBlack ? 0 : 1, alpha: 1)
            context.fill(frame)
            context.translateBy(x: 0, y: frame.height) // Core Graphics counts rows from below
            context.scaleBy(x: 1, y: -1)
            context.setStrokeColor(gray: isWhiteOnBlack ? 1 : 0, alpha: 1)
            context.setLineWidth(frame.width * Drawing.strokeWidth)
            context.setLineCap(.round)
            context.setLineJoin(.round)
            for stroke in strokes {
                context.addLines(between: points(of: stroke, in: frame))
                context.strokePath()
            }
        }
    }
}

private let sRGB = CGColorSpace(name: CGColorSpace.sRGB)
private let bytesPerPixel = 4

/// What `draw` paints on white, in sRGB.
private func pixels(width: Int, height: Int, _ draw: (CGContext, CGRect) -> Void) throws -> Pixels {
    var bytes = [UInt8](repeating: .max, count: width * height * bytesPerPixel)
    let isDrawn = bytes.withUnsafeMutableBytes { buffer in
        guard let space = sRGB,
              let context = CGContext(
                data: buffer.baseAddress, width: width, height: height, bitsPerComponent: 8,
                bytesPerRow: width * bytesPerPixel, space: space,
                bitmapInfo: CGImageAlphaInfo.premultipliedLast.rawValue
              )
        else { return false }
        draw(context, CGRect(x: 0, y: 0, width: width, height: height))
        return true
    }
    guard isDrawn else { throw PackageError("a picture of \(width) x \(height) px is too large for this device") }
    var rgb: [UInt8] = []
    rgb.reserveCapacity(width * height * Pixels.channels)
    for pixel in stride(from: 0, to: bytes.count, by: bytesPerPixel) {
        rgb += bytes[pixel..<pixel + Pixels.channels]
    }
    return Pixels(width: width, height: height, rgb: rgb)
}
