#if canImport(CoreML)
import Darwin
import DMFClassifier
import Foundation
#if canImport(UIKit)
import UIKit
#endif

/// This iPhone, iPad or Mac; `app` is what measures and its version, as in "org.dmf.demo 0.1.0".
public struct Device: MeasuredDevice {
    private let app: String

    public init(app: String) {
        self.app = app
    }

    public var isSimulator: Bool {
        #if targetEnvironment(simulator)
        true
        #else
        false
        #endif
    }

    public var description: DeviceDescription {
        let machine = systemText("hw.machine") ?? "unknown" // iPhone16,2, but arm64 on a Mac, which hw.model names
        let model = Device.platform == .iOS ? machine : systemText("hw.model") ?? machine
        return DeviceDescription(
            platform: Device.platform,
            model: model,
            majorOSVersion: ProcessInfo.processInfo.operatingSystemVersion.majorVersion,
            os: Device.os,
            machine: Device.architecture,
            cpu: systemText("machdep.cpu.brand_string") ?? model,
            logicalCores: ProcessInfo.processInfo.activeProcessorCount,
            app: app
        )
    }

    public func state() -> DeviceState {
        let process = ProcessInfo.processInfo
        let screenAndBattery = screenAndBattery()
        return DeviceState(
            thermalStatus: thermalStatus(process.thermalState),
            batteryPercent: screenAndBattery.percent,
            charging: screenAndBattery.charging,
            batterySaver: process.isLowPowerModeEnabled,
            screenOn: screenAndBattery.screenOn,
            loadAverage: Device.platform == .macOS ? loadAverage() : nil
        )
    }

    public func peakMemoryBytes() -> Int {
        var usage = rusage()
        getrusage(RUSAGE_SELF, &usage)
        return usage.ru_maxrss // in bytes, on Apple's systems
    }

    public func nanoseconds() -> UInt64 {
        DispatchTime.now().uptimeNanoseconds
    }

    public func now() -> Date {
        Date()
    }

    /// As in iOS 18.1; Core ML has no version but the system's.
    static var os: String {
        let version = ProcessInfo.processInfo.operatingSystemVersion
        let patch = version.patchVersion == 0 ? "" : ".\(version.patchVersion)"
        return "\(platform == .iOS ? "iOS" : "macOS") \(version.majorVersion).\(version.minorVersion)\(patch)"
    }

    #if os(iOS)
    private static let platform = Platform.iOS
    #else
    private static let platform = Platform.macOS
    #endif

    #if arch(arm64)
    private static let architecture = "arm64"
    #else
    private static let architecture = "x86_64"
    #endif
}

/// On Android's scale.
private func thermalStatus(_ state: ProcessInfo.ThermalState) -> Int? {
    switch state {
    case .nominal: 0
    case .fair: 1
    case .serious: 3
    case .critical: 4
    @unknown default: nil
    }
}

private func systemText(_ name: String) -> String? {
    var size = 0
    guard sysctlbyname(name, nil, &size, nil, 0) == 0, size > 0 else { return nil }
    var bytes = [UInt8](repeating: 0, count: size)
    guard sysctlbyname(name, &bytes, &size, nil, 0) == 0 else { return nil }
    return String(bytes: bytes.prefix { $0 != 0 }, encoding: .utf8)
}

private func loadAverage() -> Double? {
    var averages = [0.0]
    return getloadavg(&averages, 1) == 1 ? averages[0] : nil
}

/// nil is what the device does not tell; a Mac tells none of it.
private struct ScreenAndBattery: Sendable {
    var percent: Int?
    var charging: Bool?
    var screenOn: Bool?
}

#if canImport(UIKit)
private func screenAndBattery() -> ScreenAndBattery {
    if Thread.isMainThread { return MainActor.assumeIsolated(askUIKit) }
    return DispatchQueue.main.sync { MainActor.assumeIsolated(askUIKit) }
}

@MainActor
private func askUIKit() -> ScreenAndBattery {
    let device = UIDevice.current
    device.isBatteryMonitoringEnabled = true
    return ScreenAndBattery(
        percent: device.batteryLevel < 0 ? nil : Int((device.batteryLevel * 100).rounded()),
        charging: device.batteryState == .unknown ? nil : device.batteryState != .unplugged,
        screenOn: UIApplication.shared.applicationState == .active ? true : nil
    )
}
#else
private func screenAndBattery() -> ScreenAndBattery {
    ScreenAndBattery()
}
#endif
#endif
