import XCTest

@testable import DMFClassifier

final class GoldenTests: FolderTestCase {
    private let file = Fixtures.packageFolder.appendingPathComponent("golden.safetensors")

    func testItHoldsWhatPythonWrote() throws {
        let golden = try Golden(contentsOf: file, manifest())
        XCTAssertEqual(golden.names, ["noise 0", "photograph: café", "noise 2"])
        XCTAssertEqual(golden.budgets, [1e-3, 2e-3, 4e-3])
        XCTAssertEqual(golden.images.map { [$0.width, $0.height] }, [[8, 8], [8, 8], [8, 8]])
        XCTAssertEqual(Set(golden.images.map(\.rgb)).count, 3)
        XCTAssertEqual(golden.logits.map(\.count), [5, 5, 5])
        let frozen = try XCTUnwrap(golden.frozenLogits)
        XCTAssertEqual(frozen[0], golden.logits[0])
        for index in 1...2 {
            XCTAssertTrue(zip(frozen[index], golden.logits[index]).allSatisfy { $0 != $1 })
        }
        XCTAssertEqual(golden.modules, [TappedModule(module: "head.fc", tensors: ["linear_0_cast_fp16", "logits"])])
    }

    func testFrozenLogitsAndModulesMayBeMissing() throws {
        XCTAssertNil(try read(replacing: "frozen_logits", with: "other_logits!").frozenLogits)
        XCTAssertEqual(try read(replacing: "\"modules\"", with: "\"nodules\"").modules, [])
    }

    func testWhatIsMissingOrOfAnotherTypeIsRefused() throws {
        try assertRefused("it has no tensor images", "\"images\"", "\"imagez\"")
        try assertRefused("it has no tensor logits", "\"logits\"", "\"logitz\"")
        try assertRefused("it has no tensor budgets", "\"budgets\"", "\"budgetz\"")
        try assertRefused("its metadata has no names", "\"names\"", "\"nanes\"")
        try assertRefused("images are [3, 64, 1, 3], must be [3, 8, 8, 3]", "[3,8,8,3]", "[3,64,1,3]")
        try assertRefused("images is U8 [9, 64], must be U8 of 4 dimensions", "[3,8,8,3]", "[9,64]")
        try assertRefused(
            "budgets is F32 [6], must be F64 of 1 dimensions", "\"F64\",\"shape\":[3]", "\"F32\",\"shape\":[6]"
        )
        try assertRefused("frozen_logits are [5, 3], must be [3, 5]", "[3,5]", "[5,3]")
    }

    func testNamesAndModulesAreLists() throws {
        try assertRefused("its names are not a list of texts", #"\"noise 2\"]"#, #"[]          ]"#)
        try assertRefused("it has 2 names of 3 images", #", \"noise 2\"]"#, #"              ]"#)
        try assertRefused(
            "its modules are not a list of modules and their tensors", #"\"tensors\""#, #"\"tenzors\""#
        )
    }

    func testImagesAreOfTheManifestsCrop() throws {
        var other = try manifest()
        other.input.cropHeight = 9
        assertPackageError(
            "golden.safetensors: images are [3, 8, 8, 3], must be [3, 9, 8, 3]; export the package again"
        ) { try Golden(contentsOf: file, other) }
    }

    func testNumbersAreFinite() throws {
        let golden = try Golden(contentsOf: file, manifest())
        for (old, new, problem) in [
            (golden.logits[1][2], Double.nan, "logits are not all finite"),
            (2e-3, .nan, "budgets must be >= 0"),
            (2e-3, .infinity, "budgets must be >= 0"),
            (2e-3, -1e-3, "budgets must be >= 0")
        ] {
            var content = try Data(contentsOf: file)
            let place = try XCTUnwrap(content.range(of: littleEndian(old)))
            content.replaceSubrange(place, with: littleEndian(new))
            assertPackageError("golden.safetensors: \(problem); export the package again") { try read(content) }
        }
    }

    private func manifest() throws -> Manifest {
        try Manifest(json: Fixtures.manifest().data())
    }

    private func assertRefused(_ problem: String, _ old: String, _ new: String, line: UInt = #line) throws {
        assertPackageError("golden.safetensors: \(problem); export the package again", line: line) {
            try read(replacing: old, with: new)
        }
    }

    /// The golden vectors with the first `old` in their header replaced.
    private func read(replacing old: String, with new: String) throws -> Golden {
        let content = try Data(contentsOf: file)
        let length = Int(content[0]) + Int(content[1]) << 8
        var header = try XCTUnwrap(String(bytes: content[8..<8 + length], encoding: .utf8))
        let place = try XCTUnwrap(header.range(of: old), header)
        header.replaceSubrange(place, with: new)
        return try read(safeTensors(header, content.dropFirst(8 + length)))
    }

    private func read(_ content: Data) throws -> Golden {
        let changed = folder.appendingPathComponent("golden.safetensors")
        try content.write(to: changed)
        return try Golden(contentsOf: changed, manifest())
    }
}
