import Foundation
import XCTest

@testable import DMFClassifier

/// The tiny detector: two dense layers, with a bias for the boxes.
struct DenseDetector: Predictor {
    static let anchors = 6

    let runtime = fakeRuntime
    private let scores: [Float]
    private let boxes: [Float]
    private let corners: [Float]

    init() throws {
        let weights = try Fixtures.tensors("weights")
        scores = try weights.tensor("scores", .float32, rank: 2).floats
        boxes = try weights.tensor("boxes", .float32, rank: 2).floats
        corners = try weights.tensor("corners", .float32, rank: 1).floats
    }

    func outputs(for input: ModelInput) throws -> Outputs {
        guard case .tensor(let values) = input else { throw PredictorError("it takes a tensor") }
        let moved = zip(layer(values, boxes, columns: corners.count), corners).map(+)
        return [
            "scores": Tensor(shape: [1, DenseDetector.anchors, 5], values: layer(values, scores, columns: 30)),
            "boxes": Tensor(shape: [1, DenseDetector.anchors, 4], values: moved)
        ]
    }
}

/// The manifest of the tiny detector as one whose graph suppresses.
func suppressInGraph(_ manifest: inout JSON) throws {
    manifest["detection"]?["form"] = .text("coreml_nms")
    manifest["detection"]?["candidates"] = .null
    manifest["outputs"] = try JSON(
        parsing: """
            [{"name": "confidence", "shape": [-1, 5], "dtype": "float32"},
             {"name": "coordinates", "shape": [-1, 4], "dtype": "float32"}]
            """
    )
}

/// The tiny detector with such a graph.
struct SuppressingDetector: Predictor {
    let runtime = fakeRuntime
    private let dense: DenseDetector
    private let manifest: Manifest

    init() throws {
        dense = try DenseDetector()
        manifest = try ModelPackage(contentsOf: Fixtures.detectorFolder).manifest
    }

    func outputs(for input: ModelInput) throws -> Outputs {
        guard case .objects(let objects) = try manifest.findings(in: dense.outputs(for: input)) else { return [:] }
        let confidence = objects.flatMap { object in (0..<5).map { $0 == object.label ? Float(object.score) : 0 } }
        let coordinates = objects.map(\.box).flatMap { box -> [Float] in
            let centre = [(box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2]
            return (centre + [box.x2 - box.x1, box.y2 - box.y1]).map { Float($0 / 8) }
        }
        return [
            "confidence": Tensor(shape: [objects.count, 5], values: confidence),
            "coordinates": Tensor(shape: [objects.count, 4], values: coordinates)
        ]
    }
}

/// The manifest of the tiny detector, changed.
func detectorManifest(_ change: (inout JSON) throws -> Void) throws -> Manifest {
    let before = try Fixtures.manifest(of: Fixtures.detectorFolder)
    var after = before
    try change(&after)
    XCTAssertNotEqual(before, after, "nothing was changed")
    return try Manifest(json: after.data())
}
