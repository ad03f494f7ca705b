import AVFoundation
import DMFClassifier
import DMFCoreML

/// Upright frames of the camera at the back, from ``start()`` to ``stop()``; a newer one replaces one that nobody took.
final class CameraFeed: NSObject, AVCaptureVideoDataOutputSampleBufferDelegate, @unchecked Sendable {
    private let spec: InputSpec
    private let session = AVCaptureSession()
    private let queue = DispatchQueue(label: "camera") // the session's calls block, and its frames come here
    private let frames: AsyncThrowingStream<Pixels, any Error>
    private let continuation: AsyncThrowingStream<Pixels, any Error>.Continuation

    /// Its frames are at least as large as what they are resized to for `spec`, unless that is very large.
    init(for spec: InputSpec) {
        self.spec = spec
        (frames, continuation) = AsyncThrowingStream.makeStream(bufferingPolicy: .bufferingNewest(1))
        super.init()
    }

    /// PredictorError: there is no camera, or the app may not use it.
    func start() async throws -> AsyncThrowingStream<Pixels, any Error> {
        guard await AVCaptureDevice.requestAccess(for: .video) else {
            throw PredictorError(
                "this app may not use the camera; choose Photo or Drawing, or allow it in Settings, Privacy"
            )
        }
        queue.async { [self] in
            do {
                try configure()
                session.startRunning()
            } catch {
                continuation.finish(throwing: error)
            }
        }
        return frames
    }

    func stop() {
        continuation.finish()
        queue.async { [self] in session.stopRunning() }
    }

    private func configure() throws {
        guard let camera = AVCaptureDevice.default(for: .video) else {
            throw PredictorError("this device has no camera; choose a photo or draw one")
        }
        let input: AVCaptureDeviceInput
        do {
            input = try AVCaptureDeviceInput(device: camera)
        } catch {
            throw PredictorError(cannot: "use the camera", because: error)
        }
        let output = AVCaptureVideoDataOutput()
        output.videoSettings = [kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_32BGRA]
        output.alwaysDiscardsLateVideoFrames = true
        output.setSampleBufferDelegate(self, queue: queue)
        session.beginConfiguration()
        defer { session.commitConfiguration() }
        session.sessionPreset = spec.resized(width: 480, height: 640).width <= 480 ? .vga640x480 : .hd1920x1080
        guard session.canAddInput(input), session.canAddOutput(output) else {
            throw PredictorError("the camera cannot deliver frames for this app; choose a photo or draw one")
        }
        session.addInput(input)
        session.addOutput(output)
        output.connection(with: .video)?.videoOrientation = .portrait // as the app is
    }

    func captureOutput(
        _ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer, from connection: AVCaptureConnection
    ) {
        guard let frame = CMSampleBufferGetImageBuffer(sampleBuffer) else { return }
        do {
            continuation.yield(try Pixels(frame: frame))
        } catch {
            continuation.finish(throwing: error)
        }
    }
}
