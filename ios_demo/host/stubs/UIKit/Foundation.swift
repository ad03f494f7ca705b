// What Foundation has on Apple's systems only.
import Foundation

extension ProcessInfo {
    public enum ThermalState: Int { // = NSProcessInfoThermalState
        case nominal // = NSProcessInfoThermalState.Nominal
        case fair // = NSProcessInfoThermalState.Fair
        case serious // = NSProcessInfoThermalState.Serious
        case critical // = NSProcessInfoThermalState.Critical
    }

    public var thermalState: ThermalState { fatalError() } // = NSProcessInfo.thermalState
    public var isLowPowerModeEnabled: Bool { fatalError() } // = NSProcessInfo.lowPowerModeEnabled
}

extension URL {
    public static var documentsDirectory: URL { fatalError() } // Swift
    public static var applicationSupportDirectory: URL { fatalError() } // Swift
    public func startAccessingSecurityScopedResource() -> Bool { fatalError() } // = -[NSURL startAccessingSecurityScopedResource]
    public func stopAccessingSecurityScopedResource() { fatalError() } // = -[NSURL stopAccessingSecurityScopedResource]
}
