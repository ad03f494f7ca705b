@_exported import Bridged

public final class CGColorSpace: @unchecked Sendable { // Swift
    public convenience init?(name: CFString) { fatalError() } // = CGColorSpaceCreateWithName(); not compared: name (cg_nullable is nothing in Swift)
    public static let sRGB: CFString = "" // = kCGColorSpaceSRGB
}

public final class CGDataProvider { // Swift
    public convenience init?(data: CFData) { fatalError() } // = CGDataProviderCreateWithCFData(); not compared: data (cg_nullable is nothing in Swift)
}

public struct CGBitmapInfo: OptionSet { // = CGBitmapInfo
    public let rawValue: UInt32 // Swift
    public init(rawValue: UInt32) { fatalError() } // Swift
}

public enum CGImageAlphaInfo: UInt32 { // = CGImageAlphaInfo
    case none // = CGImageAlphaInfo.kCGImageAlphaNone
    case premultipliedLast // = CGImageAlphaInfo.kCGImageAlphaPremultipliedLast
}

public enum CGColorRenderingIntent: Int32 { // = CGColorRenderingIntent
    case defaultIntent // = CGColorRenderingIntent.kCGRenderingIntentDefault
}

public final class CGImage: @unchecked Sendable { // Swift
    public convenience init?(width: Int, height: Int, bitsPerComponent: Int, bitsPerPixel: Int, bytesPerRow: Int, space: CGColorSpace, bitmapInfo: CGBitmapInfo, provider: CGDataProvider, decode: UnsafePointer<CGFloat>?, shouldInterpolate: Bool, intent: CGColorRenderingIntent) { fatalError() } // = CGImageCreate(); not compared: space, provider (cg_nullable is nothing in Swift)
    public var width: Int { fatalError() } // = CGImageGetWidth()
    public var height: Int { fatalError() } // = CGImageGetHeight()
}

public enum CGLineCap: Int32 { // = CGLineCap
    case round // = CGLineCap.kCGLineCapRound
}

public enum CGLineJoin: Int32 { // = CGLineJoin
    case round // = CGLineJoin.kCGLineJoinRound
}

public final class CGContext { // Swift
    public convenience init?(data: UnsafeMutableRawPointer?, width: Int, height: Int, bitsPerComponent: Int, bytesPerRow: Int, space: CGColorSpace, bitmapInfo: UInt32) { fatalError() } // = CGBitmapContextCreate(); not compared: space, bitmapInfo (Swift has two, and this one takes no null and a UInt32)
    public func draw(_ image: CGImage, in rect: CGRect, byTiling: Bool = false) { fatalError() } // = CGContextDrawImage(); not compared: all (Swift's own, which also calls CGContextDrawTiledImage)
    public func setFillColor(gray: CGFloat, alpha: CGFloat) { fatalError() } // = CGContextSetGrayFillColor()
    public func setStrokeColor(gray: CGFloat, alpha: CGFloat) { fatalError() } // = CGContextSetGrayStrokeColor()
    public func fill(_ rect: CGRect) { fatalError() } // = CGContextFillRect()
    public func translateBy(x: CGFloat, y: CGFloat) { fatalError() } // = CGContextTranslateCTM()
    public func scaleBy(x: CGFloat, y: CGFloat) { fatalError() } // = CGContextScaleCTM()
    public func setLineWidth(_ width: CGFloat) { fatalError() } // = CGContextSetLineWidth()
    public func setLineCap(_ cap: CGLineCap) { fatalError() } // = CGContextSetLineCap()
    public func setLineJoin(_ join: CGLineJoin) { fatalError() } // = CGContextSetLineJoin()
    public func addLines(between points: [CGPoint]) { fatalError() } // = CGContextAddLines(); not compared: all (Swift's own, of an array)
    public func strokePath() { fatalError() } // = CGContextStrokePath()
}
