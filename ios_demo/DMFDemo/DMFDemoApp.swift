import SwiftUI

@main
struct DMFDemoApp: App {
    @Environment(\.scenePhase) private var scenePhase
    @StateObject private var library: Library
    @StateObject private var classify: ClassifyModel
    @StateObject private var benchmark: BenchmarkModel
    @State private var screen: Screen
    private let demo: Demo
    private let launchArguments = LaunchArguments(ProcessInfo.processInfo.arguments)

    enum Screen: Hashable {
        case classify
        case benchmark
        case about
    }

    init() {
        let demo = Demo()
        self.demo = demo
        _library = StateObject(wrappedValue: Library(demo.shelf))
        _classify = StateObject(wrappedValue: ClassifyModel(demo.classifier))
        _benchmark = StateObject(wrappedValue: BenchmarkModel(demo))
        _screen = State(initialValue: launchArguments.asksForRun ? .benchmark : .classify)
    }

    var body: some Scene {
        WindowGroup {
            TabView(selection: $screen) {
                ClassifyScreen(library: library, model: classify, isShown: isShown(.classify))
                    .tabItem { Label("Classify", systemImage: "camera.viewfinder") }
                    .tag(Screen.classify)
                BenchmarkScreen(library: library, model: benchmark)
                    .tabItem { Label("Benchmark", systemImage: "stopwatch") }
                    .tag(Screen.benchmark)
                AboutScreen(library: library, demo: demo)
                    .tabItem { Label("About this model", systemImage: "info.circle") }
                    .tag(Screen.about)
            }
            .task {
                demo.foreground.set(active: scenePhase == .active)
                if let names = launchArguments.cleanUp {
                    demo.shelf.removeAdded(names)
                    demo.runs.forgetAll()
                }
                library.refresh()
                if launchArguments.asksForRun { benchmark.answer(launchArguments) }
            }
            .onChange(of: scenePhase) { phase in demo.foreground.set(active: phase == .active) }
        }
    }

    /// Nothing is opened beside a measurement, nor is the camera kept for a screen that nobody sees.
    private func isShown(_ shown: Screen) -> Bool {
        screen == shown && scenePhase == .active && !benchmark.isRunning
    }
}
