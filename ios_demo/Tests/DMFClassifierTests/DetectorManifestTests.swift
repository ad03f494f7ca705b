import XCTest

@testable import DMFClassifier

/// The manifest of a detector and its golden vectors.
final class DetectorManifestTests: FolderTestCase {
    private func open() throws -> ModelPackage {
        try ModelPackage(contentsOf: Fixtures.detectorFolder)
    }

    func testItsFieldsAreRead() throws {
        let manifest = try open().manifest
        XCTAssertEqual(
            manifest.detection,
            Detection(form: .dense, scoreThreshold: 0.25, nmsIoU: 0.5, maxDetections: 4, candidates: 12)
        )
        XCTAssertEqual(manifest.answers.map(\.name), ["scores", "boxes"])
        XCTAssertEqual(manifest.classes, 5)
        XCTAssertEqual(manifest.input.fit, .pad)
        XCTAssertEqual(
            manifest.parity.detections, DetectionParity(decided: 9, found: 9, matched: 9, maxScoreError: 1e-6)
        )
        XCTAssertEqual(try Fixtures.openPackage().manifest.parity.detections, nil)
    }

    func testAnOutputIsFoundWhereverItIs() throws {
        let manifest = try detectorManifest { json in
            guard case .list(let outputs)? = json["outputs"] else { return }
            let other = try JSON(parsing: #"{"name": "other", "shape": [-1, 7], "dtype": "string"}"#)
            json["outputs"] = .list([other] + outputs.reversed())
        }
        XCTAssertEqual(manifest.answers.map(\.name), ["scores", "boxes"])
        XCTAssertEqual(manifest.classes, 5)
    }

    func testOneThatSuppressesItselfIsRead() throws {
        let manifest = try detectorManifest(suppressInGraph)
        XCTAssertEqual(manifest.detection?.form, .coremlNMS)
        XCTAssertNil(manifest.detection?.candidates)
        XCTAssertEqual(manifest.answers.map(\.name), ["confidence", "coordinates"])
        XCTAssertEqual(manifest.classes, 5)
    }

    func testWrongSettingsAreRefused() throws {
        for (field, value, problem) in [
            ("form", #""onnx_nms""#, #"is "onnx_nms", must be one of dense, coreml_nms"#),
            (
                "form", #""tflite_detection_postprocess""#,
                #"is "tflite_detection_postprocess", must be one of dense, coreml_nms"#
            ),
            ("score_threshold", "1.5", "is 1.5, must be a number of 0 to 1"),
            ("nms_iou", "-1", "is -1, must be a number of 0 to 1"),
            ("max_detections", "0", "is 0, must be an integer >= 1"),
            ("candidates", "null", "is null, must be an integer >= 1"),
            ("candidates", "0", "is 0, must be an integer >= 1")
        ] {
            try assertRefused("$.detection.\(field): \(problem)") { $0["detection"]?[field] = try JSON(parsing: value) }
        }
        for field in ["form", "score_threshold", "nms_iou", "max_detections", "candidates"] {
            XCTAssertThrowsError(try detectorManifest { $0["detection"]?[field] = nil }, field)
        }
        try assertRefused("$.detection: is 1, must be an object") { $0["detection"] = .int(1) }
    }

    func testShapesThatDoNotFitAreRefused() throws {
        let dense = "must be [1, anchors, classes] of scores, [1, anchors, 4] of boxes"
        for (index, shape) in [
            (0, "[2,6,5]"), (0, "[6,5]"), (0, "[1,0,5]"), (0, "[1,6,0]"), (1, "[1,7,4]"), (1, "[1,6,5]"), (1, "[6,4]")
        ] {
            try assertRefused("$.outputs[\(index)].shape: is \(shape), \(dense)") {
                $0["outputs"]?[index]?["shape"] = try JSON(parsing: shape)
            }
        }
        let suppressed = "must be [-1, classes] of confidence, [-1, 4] of coordinates"
        for (index, shape) in [(0, "[1,5]"), (0, "[-1,5,1]"), (0, "[-1,0]"), (1, "[-1,5]"), (1, "[4]")] {
            try assertRefused("$.outputs[\(index)].shape: is \(shape), \(suppressed)") {
                try suppressInGraph(&$0)
                $0["outputs"]?[index]?["shape"] = try JSON(parsing: shape)
            }
        }
        try assertRefused("$.outputs: have no \"boxes\", which is one of form dense") {
            $0["outputs"]?[1]?["name"] = .text("bones")
        }
        try assertRefused("$.outputs[0].dtype: is \"int8\", must be one of float32, float16, float64") {
            $0["outputs"]?[0]?["dtype"] = .text("int8")
        }
    }

    func testItIsGivenOnePictureAtATimeAndHasOneFunction() throws {
        try assertRefused("$.inputs[0].shape: is [-1,3,8,8], must be of batch 1 for a detector") {
            $0["inputs"]?[0]?["shape"] = try JSON(parsing: "[-1, 3, 8, 8]")
        }
        let sizes = try Fixtures.manifest(of: Fixtures.sizesFolder)
        XCTAssertThrowsError(try detectorManifest { json in
            json["functions"] = sizes["functions"]
            json["files"] = sizes["files"]
            json["inputs"]?[0]?["function"] = .text("main")
        }) { error in
            XCTAssertTrue(error.oneLine.hasPrefix("manifest.json: $.functions: is ["), error.oneLine)
            XCTAssertTrue("\(error)".contains("must be [] for a detector; export the package again"), "\(error)")
        }
    }

    func testAPaddedPictureIsNotResizedToANumber() throws {
        try assertRefused("$.inputs[0].resize: is 10, must be null for pad") { $0["inputs"]?[0]?["resize"] = .int(10) }
    }

    func testGoldenObjectsAreRead() throws {
        let golden = try XCTUnwrap(open().golden)
        XCTAssertEqual(golden.budgets, [1e-3, 2e-3, 4e-3])
        guard case .objects(let objects, let iou) = golden.answers else { return XCTFail("no objects") }
        XCTAssertEqual(iou, 0.9)
        XCTAssertEqual(objects.map(\.count), [4, 5, 4])
        XCTAssertEqual(objects.map { $0.filter(\.isDecided).count }, [4, 3, 4])
        let absent = DetectedObject(box: Box(x1: 0, y1: 6, x2: 1, y2: 7), score: 0.25, label: 2)
        XCTAssertEqual(objects[1].last, ExpectedObject(absent, isDecided: false))
    }

    func testWhatIsWrongWithThemIsTold() throws {
        let file = Fixtures.detectorFolder.appendingPathComponent(Golden.fileName)
        let content = try Data(contentsOf: file)
        let length = Int(content[0]) + Int(content[1]) << 8
        let header = try XCTUnwrap(String(bytes: content[8..<8 + length], encoding: .utf8))
        let manifest = try open().manifest
        for (old, new, problem) in [
            ("\"object_boxes\"", "\"object_bones\"", "it has no tensor object_boxes"),
            ("\"object_labels\"", "\"object_lapels\"", "it has no tensor object_labels"),
            ("\"object_decided\"", "\"object_besides\"", "it has no tensor object_decided"),
            ("\"score_budgets\"", "\"score_buckets\"", "it has no tensor score_budgets"),
            ("\"iou\":\"0.9\"", "\"iou\":\"1.9\"", "its metadata has no iou of 0 to 1"),
            ("\"iou\":\"0.9\"", "\"you\":\"0.9\"", "its metadata has no iou of 0 to 1"),
            ("[3,5,4]", "[5,3,4]", "object_boxes are [5, 3, 4], must be [3, 5, 4]")
        ] {
            let place = try XCTUnwrap(header.range(of: old), old)
            let damaged = safeTensors(header.replacingCharacters(in: place, with: new), content.dropFirst(8 + length))
            let copy = folder.appendingPathComponent("golden.safetensors")
            try damaged.write(to: copy)
            assertPackageError("golden.safetensors: \(problem); export the package again") {
                try Golden(contentsOf: copy, manifest)
            }
        }
        var fewer = manifest
        fewer.outputs[0].shape[2] = 2
        assertPackageError("golden.safetensors: object_labels must be -1 to 1; export the package again") {
            try Golden(contentsOf: file, fewer)
        }
    }

    func testGoldenVectorsOfTheOtherKindAreRefused() throws {
        let file = Fixtures.packageFolder.appendingPathComponent(Golden.fileName)
        assertPackageError("golden.safetensors: it has no tensor object_labels; export the package again") {
            try Golden(contentsOf: file, open().manifest)
        }
    }

    private func assertRefused(
        _ problem: String, line: UInt = #line, _ change: (inout JSON) throws -> Void
    ) throws {
        assertPackageError("manifest.json: \(problem); export the package again", line: line) {
            try detectorManifest(change)
        }
    }
}
