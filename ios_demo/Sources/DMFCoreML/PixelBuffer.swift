#if canImport(CoreML)
import CoreVideo
import DMFClassifier
import Foundation

extension Pixels {
    /// A frame of the camera, which must be upright already. PackageError: it is not 32BGRA.
    public init(frame: CVPixelBuffer) throws {
        guard CVPixelBufferGetPixelFormatType(frame) == kCVPixelFormatType_32BGRA else {
            throw PackageError("the frame is not 32BGRA; set the video output's kCVPixelBufferPixelFormatTypeKey to it")
        }
        self = frame.withBytes(.readOnly) { bytes, bytesPerRow in
            Pixels(
                bgra: UnsafeRawBufferPointer(bytes),
                width: CVPixelBufferGetWidth(frame),
                height: CVPixelBufferGetHeight(frame),
                bytesPerRow: bytesPerRow
            )
        }
    }
}

extension CVPixelBuffer {
    func write(_ pixels: Pixels) {
        withBytes([]) { bytes, bytesPerRow in pixels.write(bgra: bytes, bytesPerRow: bytesPerRow) }
    }

    fileprivate func withBytes<T>(
        _ flags: CVPixelBufferLockFlags, _ body: (UnsafeMutableRawBufferPointer, Int) -> T
    ) -> T {
        CVPixelBufferLockBaseAddress(self, flags)
        defer { CVPixelBufferUnlockBaseAddress(self, flags) }
        let bytesPerRow = CVPixelBufferGetBytesPerRow(self)
        let bytes = UnsafeMutableRawBufferPointer(
            start: CVPixelBufferGetBaseAddress(self), count: bytesPerRow * CVPixelBufferGetHeight(self)
        )
        return body(bytes, bytesPerRow)
    }
}

/// PredictorError: there is no memory for it.
func makePixelBuffer(width: Int, height: Int) throws -> CVPixelBuffer {
    let attributes = [kCVPixelBufferIOSurfacePropertiesKey as String: [String: Any]()] // what the Neural Engine reads
    var pixelBuffer: CVPixelBuffer?
    let status = CVPixelBufferCreate(
        nil, width, height, kCVPixelFormatType_32BGRA, attributes as CFDictionary, &pixelBuffer
    )
    guard let pixelBuffer else {
        throw PredictorError("cannot make a pixel buffer of \(width) x \(height) px: Core Video's error \(status)")
    }
    return pixelBuffer
}
#endif
