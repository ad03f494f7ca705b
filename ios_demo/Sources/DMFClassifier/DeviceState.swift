import Foundation

/// The device at one moment; nil is what it does not tell.
public struct DeviceState: Equatable, Sendable {
    /// On Android's scale, from 0 (none) to 6 (shutdown); Apple's systems tell four of them.
    public var thermalStatus: Int?
    /// 0..100.
    public var batteryPercent: Int?
    public var charging: Bool?
    /// Low power mode.
    public var batterySaver: Bool?
    public var screenOn: Bool?
    /// Of the last minute.
    public var loadAverage: Double?

    public init(
        thermalStatus: Int?, batteryPercent: Int?, charging: Bool?, batterySaver: Bool?, screenOn: Bool?,
        loadAverage: Double?
    ) {
        self.thermalStatus = thermalStatus
        self.batteryPercent = batteryPercent
        self.charging = charging
        self.batterySaver = batterySaver
        self.screenOn = screenOn
        self.loadAverage = loadAverage
    }
}

/// Where a report says it was measured.
public enum Platform: String, Sendable {
    case iOS = "ios"
    case macOS = "macos"
}

/// The device as such: `model` as in iPhone16,2, `machine` its architecture, `app` what measured and its version.
public struct DeviceDescription: Equatable, Sendable {
    public var platform: Platform
    public var model: String
    public var majorOSVersion: Int
    /// As in iOS 18.1.
    public var os: String
    public var machine: String
    public var cpu: String
    public var logicalCores: Int
    public var app: String

    public init(
        platform: Platform, model: String, majorOSVersion: Int, os: String, machine: String, cpu: String,
        logicalCores: Int, app: String
    ) {
        self.platform = platform
        self.model = model
        self.majorOSVersion = majorOSVersion
        self.os = os
        self.machine = machine
        self.cpu = cpu
        self.logicalCores = logicalCores
        self.app = app
    }
}

/// The device as a benchmark sees it; `Device` of DMFCoreML is the real one.
public protocol MeasuredDevice: Sendable {
    /// A simulator's time is not latency.
    var isSimulator: Bool { get }

    var description: DeviceDescription { get }

    func state() -> DeviceState

    /// This process's peak resident memory so far.
    func peakMemoryBytes() -> Int

    /// A clock that only ever goes forward.
    func nanoseconds() -> UInt64

    func now() -> Date
}
