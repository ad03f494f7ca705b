import SwiftUI

@main
struct DMFDemoApp: App {
    @Environment(\.scenePhase) private var scenePhase
    @StateObject private var library: Library
    @StateObject private var recognise: RecogniseModel
    @StateObject private var benchmark: BenchmarkModel
    @State private var screen: Screen
    private let demo: Demo
    private let launchArguments = LaunchArguments(ProcessInfo.processInfo.arguments)

    enum Screen: Hashable {
        case recognise
        case benchmark
        case about
    }

    init() {
        let demo = Demo()
        self.demo = demo
        _library = StateObject(wrappedValue: Library(demo.shelf))
        _recognise = StateObject(wrappedValue: RecogniseModel(demo.recogniser))
        _benchmark = StateObject(wrappedValue: BenchmarkModel(demo))
        _screen = State(initialValue: launchArguments.asksForRun ? .benchmark : .recognise)
    }

    var body: some Scene {
        WindowGroup {
            TabView(selection: $screen) {
                RecogniseScreen(library: library, model: recognise, isShown: isShown(.recognise))
                    .tabItem { Label("Recognise", systemImage: "camera.viewfinder") }
                    .tag(Screen.recognise)
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
