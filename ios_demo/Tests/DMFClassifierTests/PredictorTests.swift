import XCTest

@testable import DMFClassifier

final class PredictorTests: XCTestCase {
    func testComputeUnitsAreNamedAsInTheSchema() throws {
        let names = ["all", "cpu_and_neural_engine", "cpu_and_gpu", "cpu_only"]
        XCTAssertEqual(ComputeUnits.allCases.map(\.rawValue), names)
        XCTAssertEqual(try names.map(ComputeUnits.init(named:)), ComputeUnits.allCases)
        assertPredictorError(
            "compute units \"npu\" are not one of all, cpu_and_neural_engine, cpu_and_gpu, cpu_only"
        ) { try ComputeUnits(named: "npu") }
    }

    func testWhatARuntimeThrowsIsOneLine() {
        let lines = PackageError("Internal error:\n  no such\t op\n")
        XCTAssertEqual(
            PredictorError(cannot: "open it on all", because: lines).message,
            "cannot open it on all: Internal error: no such op"
        )
        XCTAssertEqual(PackageError(String(repeating: "x", count: 1000)).oneLine.count, 200)
    }

    func testModulesAndTypesAreCountedByDevice() {
        let operations = [
            PlannedOperation(type: "ios17.conv", outputs: ["x_1"], preferred: .neuralEngine),
            PlannedOperation(type: "ios17.conv", outputs: ["x_2"], preferred: .cpu),
            PlannedOperation(type: "ios17.conv", outputs: ["x_3"], preferred: .neuralEngine),
            PlannedOperation(type: "ios17.split", outputs: ["y_0", "y_1"], preferred: .gpu),
            PlannedOperation(type: "ios17.add", outputs: ["x_1_b"], preferred: .cpu),
            PlannedOperation(type: "ios17.conv", outputs: ["z"], preferred: .gpu)
        ]
        let modules = [
            TappedModule(module: "blocks.0.pw_conv1", tensors: ["x_1", "x_2"]),
            TappedModule(module: "blocks.1.split", tensors: ["y_1"])
        ]
        let plan = ComputePlan(operations, modules: modules)
        XCTAssertEqual(plan.counts, DeviceCounts(cpu: 2, gpu: 2, neuralEngine: 2))
        XCTAssertEqual(plan.entries, [
            entry("ios17.conv", "blocks.0.pw_conv1", DeviceCounts(cpu: 1, gpu: 0, neuralEngine: 1)),
            entry("ios17.conv", nil, DeviceCounts(cpu: 0, gpu: 1, neuralEngine: 1)),
            entry("ios17.split", "blocks.1.split", DeviceCounts(cpu: 0, gpu: 1, neuralEngine: 0)),
            entry("ios17.add", nil, DeviceCounts(cpu: 1, gpu: 0, neuralEngine: 0))
        ])
    }

    func testNoOperationsAreCountedAsNone() {
        let plan = ComputePlan([], modules: [])
        XCTAssertEqual(plan.counts, DeviceCounts())
        XCTAssertEqual(plan.entries, [])
    }

    private func entry(_ type: String, _ module: String?, _ counts: DeviceCounts) -> ComputePlan.Entry {
        ComputePlan.Entry(type: type, module: module, counts: counts)
    }
}
