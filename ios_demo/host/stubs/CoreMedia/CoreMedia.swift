@_exported import CoreVideo

public final class CMSampleBuffer {} // Swift

public func CMSampleBufferGetImageBuffer(_ buffer: CMSampleBuffer) -> CVImageBuffer? { fatalError() } // = CMSampleBufferGetImageBuffer()
