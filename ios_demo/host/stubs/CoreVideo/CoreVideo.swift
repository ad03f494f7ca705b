@_exported import Bridged

public final class CVPixelBuffer {} // Swift
public typealias CVImageBuffer = CVPixelBuffer // Swift
public typealias CVReturn = Int32 // Swift

public struct CVPixelBufferLockFlags: OptionSet { // = CVPixelBufferLockFlags
    public let rawValue: UInt64 // Swift
    public init(rawValue: UInt64) { fatalError() } // Swift
    public static var readOnly: CVPixelBufferLockFlags { fatalError() } // = CVPixelBufferLockFlags.kCVPixelBufferLock_ReadOnly
}

public let kCVPixelFormatType_32BGRA: OSType = 0 // = kCVPixelFormatType_32BGRA
public typealias OSType = UInt32 // Swift
public let kCVPixelBufferIOSurfacePropertiesKey: CFString = "" // = kCVPixelBufferIOSurfacePropertiesKey
public let kCVPixelBufferPixelFormatTypeKey: CFString = "" // = kCVPixelBufferPixelFormatTypeKey

public func CVPixelBufferCreate(_ allocator: AnyObject?, _ width: Int, _ height: Int, _ format: OSType, _ attributes: CFDictionary?, _ out: UnsafeMutablePointer<CVPixelBuffer?>) -> CVReturn { fatalError() } // = CVPixelBufferCreate()
@discardableResult public func CVPixelBufferLockBaseAddress(_ buffer: CVPixelBuffer, _ flags: CVPixelBufferLockFlags) -> CVReturn { fatalError() } // = CVPixelBufferLockBaseAddress()
@discardableResult public func CVPixelBufferUnlockBaseAddress(_ buffer: CVPixelBuffer, _ flags: CVPixelBufferLockFlags) -> CVReturn { fatalError() } // = CVPixelBufferUnlockBaseAddress()
public func CVPixelBufferGetBaseAddress(_ buffer: CVPixelBuffer) -> UnsafeMutableRawPointer? { fatalError() } // = CVPixelBufferGetBaseAddress()
public func CVPixelBufferGetBytesPerRow(_ buffer: CVPixelBuffer) -> Int { fatalError() } // = CVPixelBufferGetBytesPerRow()
public func CVPixelBufferGetWidth(_ buffer: CVPixelBuffer) -> Int { fatalError() } // = CVPixelBufferGetWidth()
public func CVPixelBufferGetHeight(_ buffer: CVPixelBuffer) -> Int { fatalError() } // = CVPixelBufferGetHeight()
public func CVPixelBufferGetPixelFormatType(_ buffer: CVPixelBuffer) -> OSType { fatalError() } // = CVPixelBufferGetPixelFormatType()
