@_exported import CoreGraphics

public final class CGImageSource {} // Swift

public func CGImageSourceCreateWithData(_ data: CFData, _ options: CFDictionary?) -> CGImageSource? { fatalError() } // = CGImageSourceCreateWithData()
public func CGImageSourceCopyPropertiesAtIndex(_ source: CGImageSource, _ index: Int, _ options: CFDictionary?) -> CFDictionary? { fatalError() } // = CGImageSourceCopyPropertiesAtIndex()
public func CGImageSourceCreateThumbnailAtIndex(_ source: CGImageSource, _ index: Int, _ options: CFDictionary?) -> CGImage? { fatalError() } // = CGImageSourceCreateThumbnailAtIndex()

public let kCGImagePropertyPixelWidth: CFString = "" // = kCGImagePropertyPixelWidth
public let kCGImagePropertyPixelHeight: CFString = "" // = kCGImagePropertyPixelHeight
public let kCGImageSourceCreateThumbnailFromImageAlways: CFString = "" // = kCGImageSourceCreateThumbnailFromImageAlways
public let kCGImageSourceCreateThumbnailWithTransform: CFString = "" // = kCGImageSourceCreateThumbnailWithTransform
public let kCGImageSourceThumbnailMaxPixelSize: CFString = "" // = kCGImageSourceThumbnailMaxPixelSize
