import XCTest

@testable import DMFClassifier

final class ManifestTests: XCTestCase {
    func testEveryFieldIsRead() throws {
        let manifest = try Manifest(json: Fixtures.manifest().data())
        XCTAssertEqual(manifest.name, "tiny-coreml-fp16")
        XCTAssertEqual(manifest.artifact, "model.mlpackage")
        XCTAssertEqual(manifest.target, "coreml-ane")
        XCTAssertEqual(manifest.precision, "fp16")
        XCTAssertEqual(manifest.model, ModelInfo(variant: "tiny", parameters: 960))
        XCTAssertEqual(manifest.checkpoint, Checkpoint(source: "seeded", pathName: nil, seed: 1))
        XCTAssertEqual(manifest.source, Source(commit: nil, dirty: nil))
        XCTAssertEqual(manifest.answers[0], OutputSpec(name: "logits", shape: [-1, 5], dtype: "float16"))
        XCTAssertEqual(manifest.outputs.map(\.name), ["logits", "label_probs", "label"])
        XCTAssertEqual(manifest.classes, 5)
        XCTAssertEqual(manifest.labels, "labels.txt")
        let output = OutputParity(name: "logits", maxAbsError: 1e-6, budgetMaxAbsError: 4e-3)
        XCTAssertEqual(manifest.parity, Parity(oracle: "numpy float64", passed: true, outputs: [output]))
        XCTAssertEqual(manifest.golden, "golden.safetensors")
        XCTAssertEqual(manifest.functions, [])
        XCTAssertEqual(manifest.alone, [manifest])
        XCTAssertEqual(manifest.unchecked, ["Everything: the package is for tests"])
        XCTAssertEqual(manifest.files.map(\.role), [.golden, .labels, .artifact, .artifact, .artifact])
        XCTAssertEqual(manifest.files[0].path, "golden.safetensors")
        XCTAssertEqual(manifest.files[1].sizeBytes, 33)
        let input = InputSpec(
            name: "image",
            function: nil,
            shape: [-1, 3, 8, 8],
            layout: .nchw,
            dtype: .float32,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            normalisationInGraph: false,
            fit: .crop(resize: 10),
            cropHeight: 8,
            cropWidth: 8,
            interpolation: .bicubic
        )
        XCTAssertEqual(manifest.input, input)
    }

    func testWhatMayBeNullOrOtherwiseIsRead() throws {
        let manifest = try Manifest(json: changed { json in
            json["labels"] = .null
            json["source"] = try JSON(parsing: #"{"commit": "abc", "dirty": true}"#)
            json["checkpoint"] = try JSON(parsing: #"{"source": "file", "path_name": "a.pt", "seed": null}"#)
            json["inputs"]?[0]?["shape"] = try JSON(parsing: "[1, 3, 8, 8]")
            json["inputs"]?[0]?["batches"] = .null
            json["inputs"]?[0]?["dtype"] = .text("image")
            json["inputs"]?[0]?["normalisation_in_graph"] = .bool(true)
            json["outputs"]?[0]?["dtype"] = .text("float32")
        }.data())
        XCTAssertNil(manifest.labels)
        XCTAssertEqual(manifest.source, Source(commit: "abc", dirty: true))
        XCTAssertEqual(manifest.checkpoint, Checkpoint(source: "file", pathName: "a.pt", seed: nil))
        XCTAssertEqual(manifest.input.shape, [1, 3, 8, 8])
        XCTAssertEqual(manifest.input.dtype, .image)
        XCTAssertTrue(manifest.input.normalisationInGraph)
        XCTAssertEqual(manifest.answers[0].dtype, "float32")
    }

    func testAnotherVersionIsRefused() throws {
        for version in [2, 4] {
            try assertRefused("$.schema_version: is \(version), must be 3; update the app, or export again") {
                $0["schema_version"] = .int(version)
            }
        }
        try assertRefused("$.schema_version: is missing, must be an integer >= 0; export the package again") {
            $0["schema_version"] = nil
        }
        try assertRefused("$.schema_version: is true, must be an integer >= 0; export the package again") {
            $0["schema_version"] = .bool(true)
        }
    }

    func testFormatsOfOtherDevicesAreRefused() throws {
        for format in ["onnx", "tflite"] {
            try assertRefused(
                "$.format: is \"\(format)\", which is not for Apple devices; export with --format coreml"
            ) { $0["format"] = .text(format) }
        }
        try assertRefused("$.format: is \"ptl\", must be coreml; export the package again") {
            $0["format"] = .text("ptl")
        }
        let onnx = Fixtures.folder.appendingPathComponent("package")
        assertPackageError(
            "manifest.json: $.format: is \"onnx\", which is not for Apple devices; export with --format coreml"
        ) { try ModelPackage(contentsOf: onnx) }
    }

    func testMissingFieldsAreNamed() throws {
        let fields = ["name", "format", "artifact", "target", "precision", "model", "checkpoint", "source", "inputs"]
            + ["outputs", "detection", "labels", "parity", "functions", "unchecked", "files"]
        for field in fields {
            try assertNames("$.\(field): is missing, must be ") { $0[field] = nil }
        }
        let inputFields = ["name", "function", "shape", "batches", "layout", "dtype", "colour_order", "mean", "std"]
            + ["fit", "resize", "crop", "normalisation_in_graph", "interpolation"]
        for field in inputFields {
            try assertNames("$.inputs[0].\(field): is missing, must be ") { $0["inputs"]?[0]?[field] = nil }
        }
        for field in ["path", "role", "sha256", "size_bytes"] {
            try assertNames("$.files[1].\(field): is missing, must be ") { $0["files"]?[1]?[field] = nil }
        }
        for field in ["name", "shape", "dtype"] {
            try assertNames("$.outputs[1].\(field): is missing, must be ") { $0["outputs"]?[1]?[field] = nil }
        }
        try assertNames("$.model.variant: is missing, must be ") { $0["model"]?["variant"] = nil }
        try assertNames("$.checkpoint.seed: is missing, must be ") { $0["checkpoint"]?["seed"] = nil }
        try assertNames("$.source.dirty: is missing, must be ") { $0["source"]?["dirty"] = nil }
        try assertNames("$.parity.outputs[0].max_abs_error: is missing, must be ") {
            $0["parity"]?["outputs"]?[0]?["max_abs_error"] = nil
        }
    }

    func testWrongInputsAreRefused() throws {
        let oneImage = "must be [1 or -1, 3, 8, 8], the crop in this layout, one image at a time"
        let refusals = [
            ("crop", "[8]", "is [8], must be two integers >= 1"),
            ("crop", "[0, 8]", "is [0,8], must be two integers >= 1"),
            ("crop", "[8, 8.5]", "is [8,8.5], must be two integers >= 1"),
            ("crop", #""8x8""#, #"is "8x8", must be two integers >= 1"#),
            ("shape", "[-1, 8, 8, 3]", "is [-1,8,8,3], \(oneImage)"),
            ("shape", "[4, 3, 8, 8]", "is [4,3,8,8], \(oneImage)"),
            ("batches", "[2, 4]", "is [2,4], must be null or a list with 1 in it, one image at a time"),
            ("batches", "1", "is 1, must be null or a list with 1 in it, one image at a time"),
            ("function", "1", "is 1, must be text or null"),
            ("layout", #""CHWN""#, #"is "CHWN", must be one of NCHW, NHWC"#),
            ("dtype", #""float16""#, #"is "float16", must be one of float32, image"#),
            ("dtype", #""image""#, nil),
            ("colour_order", #""BGR""#, #"is "BGR", must be RGB"#),
            ("mean", "[0.5, 0.5]", "is [0.5,0.5], must be three numbers"),
            ("mean", "[0.5, 0.5, true]", "is [0.5,0.5,true], must be three numbers"),
            ("std", "[0.5, 0.5, 0]", "is [0.5,0.5,0], must be three numbers > 0"),
            ("normalisation_in_graph", "0", "is 0, must be true or false"),
            ("fit", #""stretch""#, #"is "stretch", must be one of crop, pad"#),
            ("resize", "null", "is null, must be an integer >= 1"),
            ("resize", "0", "is 0, must be an integer >= 1"),
            ("resize", #""256""#, #"is "256", must be an integer >= 1"#),
            ("interpolation", #""nearest""#, #"is "nearest", must be one of bicubic, bilinear"#)
        ]
        for (field, value, problem) in refusals {
            let message = problem.map { "$.inputs[0].\(field): \($0); export the package again" }
                ?? "$.inputs[0].normalisation_in_graph: is false, must be true for an image; export the package again"
            try assertRefused(message) { $0["inputs"]?[0]?[field] = try JSON(parsing: value) }
        }
    }

    func testWrongOutputsAreRefused() throws {
        try assertRefused(
            "$.outputs[0].dtype: is \"int8\", must be one of float32, float16; export the package again"
        ) { $0["outputs"]?[0]?["dtype"] = .text("int8") }
        for shape in ["[1,5,1]", "[2,5]", "[1,0]"] {
            try assertRefused(
                "$.outputs[0].shape: is \(shape), must be [1 or -1, classes], the logits of one image; "
                    + "export the package again"
            ) { $0["outputs"]?[0]?["shape"] = try JSON(parsing: shape) }
        }
        try assertRefused("$.outputs: is [], must be a list of at least one object; export the package again") {
            $0["outputs"] = .list([])
        }
    }

    func testWrongFilesAreRefused() throws {
        for path in ["/etc/passwd", "../model.onnx", "a/../../b", "a\\b", "", "a/.."] {
            try assertNames("$.files[2].path: is ") { $0["files"]?[2]?["path"] = .text(path) }
        }
        let digits = "must be 64 lower-case hexadecimal digits; export the package again"
        try assertRefused("$.files[2].sha256: is \"ABC\", \(digits)") { $0["files"]?[2]?["sha256"] = .text("ABC") }
        let capital = String(repeating: "A", count: 64)
        try assertRefused("$.files[2].sha256: is \"\(capital)\", \(digits)") {
            $0["files"]?[2]?["sha256"] = .text(capital)
        }
        try assertRefused("$.files[2].size_bytes: is -1, must be an integer >= 0; export the package again") {
            $0["files"]?[2]?["size_bytes"] = .int(-1)
        }
        try assertRefused(
            "$.artifact: is \"labels.txt\", must be a file or folder with the role artifact: model.mlpackage; "
                + "export the package again"
        ) { $0["artifact"] = .text("labels.txt") }
        try assertRefused(
            "$.labels: is \"names.txt\", must be a file or folder with the role labels: labels.txt; "
                + "export the package again"
        ) { $0["labels"] = .text("names.txt") }
    }

    func testWhatIsLongIsCut() throws {
        let start = "\"" + String(repeating: "x", count: 79)
        try assertRefused(
            "$.precision: is \(start)..., must be one of fp32, fp16, w8, w8a8; export the package again"
        ) { $0["precision"] = .text(String(repeating: "x", count: 1000)) }
    }

    func testWhatIsNotAJSONObjectIsRefused() throws {
        assertPackageError("manifest.json: $: is [], must be an object; export the package again") {
            try Manifest(json: Data("[]".utf8))
        }
        let whole = try XCTUnwrap(String(bytes: Fixtures.manifest().data(), encoding: .utf8))
        let deep = String(repeating: "[", count: 100_000)
        for text in ["", "{", String(whole.dropLast()), whole + " {}", "{\n\n", deep] {
            XCTAssertThrowsError(try Manifest(json: Data(text.utf8))) { error in
                let message = (error as? PackageError)?.message ?? ""
                XCTAssertTrue(message.hasPrefix("manifest.json: not valid JSON: "), message)
                XCTAssertTrue(message.hasSuffix("; export the package again"), message)
                XCTAssertFalse(message.contains(where: \.isNewline), message)
            }
        }
    }

    private func changed(_ change: (inout JSON) throws -> Void) throws -> JSON {
        let before = try Fixtures.manifest()
        var after = before
        try change(&after)
        XCTAssertNotEqual(before, after, "nothing was changed")
        return after
    }

    private func assertRefused(
        _ message: String, line: UInt = #line, _ change: (inout JSON) throws -> Void
    ) throws {
        let data = try changed(change).data()
        assertPackageError("manifest.json: \(message)", line: line) { try Manifest(json: data) }
    }

    private func assertNames(_ start: String, line: UInt = #line, _ change: (inout JSON) throws -> Void) throws {
        let data = try changed(change).data()
        XCTAssertThrowsError(try Manifest(json: data), line: line) { error in
            let message = (error as? PackageError)?.message ?? ""
            XCTAssertTrue(message.hasPrefix("manifest.json: \(start)"), message, line: line)
            XCTAssertTrue(message.hasSuffix("; export the package again"), message, line: line)
        }
    }
}
