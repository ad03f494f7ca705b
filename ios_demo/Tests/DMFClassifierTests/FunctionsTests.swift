import XCTest

@testable import DMFClassifier

/// Packages whose artifact has several functions.
final class FunctionsTests: FolderTestCase {
    func testEachIsReadAsIfItWereTheOnlyOne() throws {
        let manifest = try Manifest(json: Fixtures.manifest(of: Fixtures.sizesFolder).data())
        XCTAssertEqual(manifest.name, "tiny-coreml-sizes-fp16")
        let alone = manifest.alone
        XCTAssertEqual(alone.map(\.name), ["tiny-coreml-sizes-fp16:main", "tiny-coreml-sizes-fp16:size_6"])
        XCTAssertEqual(alone.map(\.input.function), ["main", "size_6"])
        XCTAssertEqual(alone.map(\.input.shape), [[1, 3, 8, 8], [1, 3, 6, 6]])
        XCTAssertEqual(alone.map(\.input.fit), [.crop(resize: 10), .crop(resize: 7)])
        XCTAssertEqual(alone.map(\.golden), ["golden.safetensors", "size_6-golden.safetensors"])
        XCTAssertEqual(alone.map(\.parity), [manifest.parity, manifest.functions[0].parity])
        XCTAssertEqual(alone.map(\.functions), [[], []])
        XCTAssertEqual(alone.map(\.alone), alone.map { [$0] })
        XCTAssertEqual(alone.map(\.files), [manifest.files, manifest.files])
    }

    func testTheFirstIsMain() throws {
        for (name, shown) in [(JSON.null, "null"), (.text("first"), "\"first\"")] {
            try assertRefused("$.inputs[0].function: is \(shown), must be main") {
                $0["inputs"]?[0]?["function"] = name
            }
        }
    }

    func testWhatIsWrongIsRefused() throws {
        for (field, value, problem) in [
            ("input", "null", "is null, must be an object"),
            ("parity", "[]", "is [], must be an object"),
            (
                "golden", #""labels.txt""#, #"is "labels.txt", must be a file or folder with the role golden: "#
                    + "golden.safetensors, size_6-golden.safetensors"
            )
        ] {
            try assertRefused("$.functions[0].\(field): \(problem)") {
                $0["functions"]?[0]?[field] = try JSON(parsing: value)
            }
        }
        let oneImage = "must be [1 or -1, 3, 6, 6], the crop in this layout, one image at a time"
        for (field, value, problem) in [
            ("function", "null", "is null, must be text that is not empty"),
            ("function", #""""#, #"is "", must be text that is not empty"#),
            ("batches", "[2]", "is [2], must be null or a list with 1 in it, one image at a time"),
            ("shape", "[1,3,8,8]", "is [1,3,8,8], \(oneImage)")
        ] {
            try assertRefused("$.functions[0].input.\(field): \(problem)") {
                $0["functions"]?[0]?["input"]?[field] = try JSON(parsing: value)
            }
        }
        try assertRefused("$.functions: is null, must be a list of objects") { $0["functions"] = .null }
    }

    func testAnArtifactOfOneFunctionIsThatFunction() throws {
        let opened = try Fixtures.openPackage()
        XCTAssertEqual(opened.functions.map(\.manifest), [opened.manifest])
        XCTAssertEqual(opened.functions.map(\.golden), [opened.golden])
        XCTAssertEqual(try opened.functions(named: nil).count, 1)
        assertPackageError("tiny-coreml-fp16 has no function \"main\", it has but one; name none") {
            try opened.functions(named: "main")
        }
    }

    func testEachFunctionIsAPackage() throws {
        let opened = try ModelPackage(contentsOf: Fixtures.sizesFolder)
        let functions = opened.functions
        XCTAssertEqual(functions.map(\.manifest), opened.manifest.alone)
        XCTAssertEqual(functions.map { $0.golden?.images[0].width }, [8, 6])
        XCTAssertEqual(functions[0].golden, opened.golden)
        for function in functions {
            XCTAssertEqual(function.labels, opened.labels)
            XCTAssertEqual(function.artifact, opened.artifact)
            XCTAssertEqual(function.artifactSHA256, opened.artifactSHA256)
            XCTAssertEqual(function.functions.map(\.manifest), [function.manifest])
            XCTAssertEqual(
                try opened.functions(named: function.manifest.input.function).map(\.manifest), [function.manifest]
            )
        }
        XCTAssertEqual(try opened.functions(named: nil).map(\.manifest), functions.map(\.manifest))
        assertPackageError("tiny-coreml-sizes-fp16 has no function \"size_7\", only: main, size_6") {
            try opened.functions(named: "size_7")
        }
    }

    func testGoldenVectorsAreOfTheirFunctionsSize() throws {
        let copy = try copyPackage(Fixtures.sizesFolder) { _, manifest in
            manifest["functions"]?[0]?["golden"] = .text("golden.safetensors")
        }
        assertPackageError(
            "golden.safetensors: images are [3, 8, 8, 3], must be [3, 6, 6, 3]; export the package again"
        ) { try ModelPackage(contentsOf: copy) }
    }

    private func assertRefused(
        _ problem: String, line: UInt = #line, _ change: (inout JSON) throws -> Void
    ) throws {
        let before = try Fixtures.manifest(of: Fixtures.sizesFolder)
        var after = before
        try change(&after)
        XCTAssertNotEqual(before, after, "nothing was changed", line: line)
        let data = try after.data()
        assertPackageError("manifest.json: \(problem); export the package again", line: line) {
            try Manifest(json: data)
        }
    }
}
