@_exported import CoreMedia

public struct AVMediaType { // Swift
    public static let video = AVMediaType() // = AVMediaTypeVideo
}

public final class AVCaptureDevice { // = AVCaptureDevice
    public static func requestAccess(for type: AVMediaType) async -> Bool { fatalError() } // = +[AVCaptureDevice requestAccessForMediaType:completionHandler:]
    public static func `default`(for type: AVMediaType) -> AVCaptureDevice? { fatalError() } // = +[AVCaptureDevice defaultDeviceWithMediaType:]
}

open class AVCaptureInput {} // = AVCaptureInput

public final class AVCaptureDeviceInput: AVCaptureInput { // = AVCaptureDeviceInput
    public init(device: AVCaptureDevice) throws { fatalError() } // = -[AVCaptureDeviceInput initWithDevice:error:]
}

open class AVCaptureOutput { // = AVCaptureOutput
    public func connection(with type: AVMediaType) -> AVCaptureConnection? { fatalError() } // = -[AVCaptureOutput connectionWithMediaType:]
}

public enum AVCaptureVideoOrientation: Int { // = AVCaptureVideoOrientation
    case portrait // = AVCaptureVideoOrientation.Portrait
}

public final class AVCaptureConnection { // = AVCaptureConnection
    public var videoOrientation: AVCaptureVideoOrientation { get { fatalError() } set { fatalError() } } // = AVCaptureConnection.videoOrientation
}

public protocol AVCaptureVideoDataOutputSampleBufferDelegate: AnyObject { // = AVCaptureVideoDataOutputSampleBufferDelegate
    func captureOutput(_ output: AVCaptureOutput, didOutput buffer: CMSampleBuffer, from connection: AVCaptureConnection) // = -[AVCaptureVideoDataOutputSampleBufferDelegate captureOutput:didOutputSampleBuffer:fromConnection:]
}

public final class AVCaptureVideoDataOutput: AVCaptureOutput { // = AVCaptureVideoDataOutput
    public override init() { fatalError() } // = +[AVCaptureVideoDataOutput new]
    public var videoSettings: [String: Any]! { get { fatalError() } set { fatalError() } } // = AVCaptureVideoDataOutput.videoSettings
    public var alwaysDiscardsLateVideoFrames: Bool { get { fatalError() } set { fatalError() } } // = AVCaptureVideoDataOutput.alwaysDiscardsLateVideoFrames
    public func setSampleBufferDelegate(_ delegate: (any AVCaptureVideoDataOutputSampleBufferDelegate)?, queue: DispatchQueue?) { fatalError() } // = -[AVCaptureVideoDataOutput setSampleBufferDelegate:queue:]
}

public final class AVCaptureSession: @unchecked Sendable { // = AVCaptureSession
    public struct Preset: Sendable { // Swift
        public static let vga640x480 = Preset() // = AVCaptureSessionPreset640x480
        public static let hd1920x1080 = Preset() // = AVCaptureSessionPreset1920x1080
    }

    public init() { fatalError() } // = +[AVCaptureSession new]
    public var sessionPreset: Preset { get { fatalError() } set { fatalError() } } // = AVCaptureSession.sessionPreset
    public func beginConfiguration() { fatalError() } // = -[AVCaptureSession beginConfiguration]
    public func commitConfiguration() { fatalError() } // = -[AVCaptureSession commitConfiguration]
    public func canAddInput(_ input: AVCaptureInput) -> Bool { fatalError() } // = -[AVCaptureSession canAddInput:]
    public func addInput(_ input: AVCaptureInput) { fatalError() } // = -[AVCaptureSession addInput:]
    public func canAddOutput(_ output: AVCaptureOutput) -> Bool { fatalError() } // = -[AVCaptureSession canAddOutput:]
    public func addOutput(_ output: AVCaptureOutput) { fatalError() } // = -[AVCaptureSession addOutput:]
    public func startRunning() { fatalError() } // = -[AVCaptureSession startRunning]
    public func stopRunning() { fatalError() } // = -[AVCaptureSession stopRunning]
}
