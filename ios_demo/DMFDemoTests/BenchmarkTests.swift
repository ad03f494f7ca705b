import DMFClassifier
import DMFCoreML
import XCTest

@testable import DMFDemo

/// Measures without a person what the app carries; on a simulator, that it is refused.
final class BenchmarkTests: XCTestCase {
    @MainActor
    func testThePackagesOfTheAppAreMeasured() async throws {
        let demo = Demo()
        let packages = demo.shelf.list()
        try XCTSkipIf(packages.isEmpty, "no package is in this app; put some into DMFDemo/Packages")
        demo.foreground.set(active: true) // as the app that hosts this test is
        for package in packages {
            let plan = try BenchmarkPlan(
                folder: package.folder, computeUnits: ComputeUnits.allCases, warmup: 5, repeats: 30
            )
            do {
                let reports = try await plan.measure(
                    on: demo.device, compile: Demo.compile, foreground: demo.foreground, begin: { _ in }
                )
                XCTAssertFalse(demo.device.isSimulator)
                let functions = try XCTUnwrap(package.manifest?.alone)
                XCTAssertEqual(
                    reports.map(\.runtime.computeUnits), functions.flatMap { _ in ComputeUnits.allCases }, package.title
                )
                XCTAssertFalse(reports.contains { $0.invalidBecause.contains(.wrongAnswers) }, package.title)
                try demo.runs.write(latencyResults(reports), of: "test-\(package.folder.lastPathComponent)")
            } catch let error as PredictorError where demo.device.isSimulator {
                XCTAssertTrue(error.message.hasPrefix("this is a simulator"), error.message)
            }
        }
    }
}
