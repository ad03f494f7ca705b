@_exported import CoreGraphics

@MainActor public final class UIDevice { // = UIDevice
    public enum BatteryState: Int { // = UIDeviceBatteryState
        case unknown // = UIDeviceBatteryState.Unknown
        case unplugged // = UIDeviceBatteryState.Unplugged
        case charging // = UIDeviceBatteryState.Charging
        case full // = UIDeviceBatteryState.Full
    }

    public static var current: UIDevice { fatalError() } // = UIDevice.currentDevice
    public var isBatteryMonitoringEnabled: Bool { get { fatalError() } set { fatalError() } } // = UIDevice.batteryMonitoringEnabled
    public var batteryLevel: Float { fatalError() } // = UIDevice.batteryLevel
    public var batteryState: BatteryState { fatalError() } // = UIDevice.batteryState
}

@MainActor public final class UIApplication { // = UIApplication
    public enum State: Int { // = UIApplicationState
        case active // = UIApplicationState.Active
        case inactive // = UIApplicationState.Inactive
        case background // = UIApplicationState.Background
    }

    public static var shared: UIApplication { fatalError() } // = UIApplication.sharedApplication
    public var applicationState: State { fatalError() } // = UIApplication.applicationState
    public var isIdleTimerDisabled: Bool { get { fatalError() } set { fatalError() } } // = UIApplication.idleTimerDisabled
}
