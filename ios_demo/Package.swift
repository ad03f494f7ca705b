// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "DMF",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [
        .library(name: "DMFClassifier", targets: ["DMFClassifier"]),
        .library(name: "DMFCoreML", targets: ["DMFCoreML"]),
        .executable(name: "dmf-bench-coreml", targets: ["dmf-bench-coreml"])
    ],
    targets: [
        .target(name: "DMFClassifier"),
        .target(name: "DMFCoreML", dependencies: ["DMFClassifier"]), // empty but on Apple's systems
        .executableTarget(name: "dmf-bench-coreml", dependencies: ["DMFClassifier", "DMFCoreML"]),
        .testTarget(name: "DMFClassifierTests", dependencies: ["DMFClassifier"]),
        .testTarget(name: "BenchCommandTests", dependencies: ["DMFClassifier", "dmf-bench-coreml"])
    ]
)
