import XCTest

@testable import DMFClassifier

final class ModelPackageTests: FolderTestCase {
    private let model = "model.mlpackage/Data/com.apple.CoreML/model.mlmodel"

    func testAWholePackageOpens() throws {
        let opened = try Fixtures.openPackage()
        XCTAssertEqual(opened.artifact.path, Fixtures.packageFolder.appendingPathComponent("model.mlpackage").path)
        XCTAssertEqual(opened.labels, ["tench", "goldfish", "café au lait", "a", "b"])
        XCTAssertEqual(opened.golden?.names, ["noise 0", "photograph: café", "noise 2"])
    }

    func testLabelsAndGoldenVectorsMayBeMissing() throws {
        let opened = try ModelPackage(contentsOf: copyArtifactAlone())
        XCTAssertNil(opened.labels)
        XCTAssertNil(opened.golden)
    }

    /// As Python's Package.artifact_sha256 says of these files.
    func testAnArtifactOfSeveralFilesHasTheHashOfTheirListing() throws {
        XCTAssertEqual(
            try Fixtures.openPackage().artifactSHA256,
            "787279c33c68dbf688a9bb548d156932563c10f83a43fb34a788a282e9d06f22"
        )
    }

    func testAnArtifactOfOneFileHasItsHash() throws {
        let copy = try copyPackage { copy, manifest in
            try FileManager.default.removeItem(at: copy.appendingPathComponent("model.mlpackage"))
            try Data("abc".utf8).write(to: copy.appendingPathComponent("model.mlmodel"))
            manifest["files"]?[4] = nil
            manifest["files"]?[3] = nil
            manifest["files"]?[2] = listed("model.mlmodel", "artifact", Data("abc".utf8))
            manifest["artifact"] = .text("model.mlmodel")
        }
        XCTAssertEqual(
            try ModelPackage(contentsOf: copy).artifactSHA256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        )
    }

    func testAlteredMissingAndAddedFilesAreNamed() throws {
        let copy = try copyPackage()
        let file = copy.appendingPathComponent(model)
        try Data("made uq".utf8).write(to: file)
        assertChanged(copy, "\(model) was altered")
        try Data("made up, and more".utf8).write(to: file)
        assertChanged(copy, "\(model) was altered")
        try FileManager.default.removeItem(at: file)
        assertChanged(copy, "\(model) is missing")
        let added = copy.appendingPathComponent("model.mlpackage/.sub")
        try FileManager.default.createDirectory(at: added, withIntermediateDirectories: true)
        try Data().write(to: added.appendingPathComponent("more.txt"))
        assertChanged(copy, "\(model) is missing; model.mlpackage/.sub/more.txt was added")
    }

    func testASizeThatIsNotTheFilesIsAnAlteration() throws {
        let copy = try copyPackage { _, manifest in manifest["files"]?[1]?["size_bytes"] = .int(32) }
        assertChanged(copy, "labels.txt was altered")
    }

    func testWhatFinderLeavesIsNoChange() throws {
        let copy = try copyPackage()
        try Data().write(to: copy.appendingPathComponent(".DS_Store"))
        try Data().write(to: copy.appendingPathComponent("model.mlpackage/.DS_Store"))
        XCTAssertNoThrow(try ModelPackage(contentsOf: copy))
    }

    func testAFolderWithoutAManifestIsNoPackage() throws {
        for place in [folder, folder.appendingPathComponent("nowhere")] {
            assertPackageError("\(place.path): no manifest.json in it; give a package that dmf-export wrote") {
                try ModelPackage(contentsOf: place)
            }
        }
    }

    func testWhatCannotBeReadIsAPackageErrorOfOneLine() throws {
        let copy = try copyPackage()
        try FileManager.default.removeItem(at: copy.appendingPathComponent("manifest.json"))
        try FileManager.default.createDirectory(
            at: copy.appendingPathComponent("manifest.json"), withIntermediateDirectories: true
        )
        XCTAssertThrowsError(try ModelPackage(contentsOf: copy)) { error in
            let message = (error as? PackageError)?.message ?? ""
            XCTAssertTrue(message.hasPrefix("\(copy.path): cannot be read: "), message)
            XCTAssertTrue(message.hasSuffix("; copy the package again"), message)
        }
    }

    func testLabelsAreAsManyAsClasses() throws {
        for (text, lines) in [("a\nb\n", 2), ("a\nb\nc\nd\ne\n\n", 6), ("", 0)] {
            let copy = try copyPackage { copy, manifest in
                try replaceLabels(copy, &manifest, text)
            }
            assertPackageError(
                "labels.txt: has \(lines) lines, the model 5 classes; export the package again"
            ) { try ModelPackage(contentsOf: copy) }
            try FileManager.default.removeItem(at: copy)
        }
    }

    func testLabelsNeedNoLineBreakAtTheEndAndMayHaveWindowsOnes() throws {
        let copy = try copyPackage { copy, manifest in try replaceLabels(copy, &manifest, "a\r\nb\r\n\r\nd\r\ne") }
        XCTAssertEqual(try ModelPackage(contentsOf: copy).labels, ["a", "b", "", "d", "e"])
    }

    func testADamagedGoldenFileIsNoPackageEvenIfItsHashIsRight() throws {
        let damaged = Data("no tensors".utf8)
        let copy = try copyPackage { copy, manifest in
            try damaged.write(to: copy.appendingPathComponent("golden.safetensors"))
            manifest["files"]?[0] = listed("golden.safetensors", "golden", damaged)
        }
        XCTAssertThrowsError(try ModelPackage(contentsOf: copy)) { XCTAssertTrue($0 is PackageError) }
    }

    private func assertChanged(_ copy: URL, _ changes: String, line: UInt = #line) {
        assertPackageError(
            "\(copy.path): not as its manifest lists it: \(changes); export or copy it again", line: line
        ) { try ModelPackage(contentsOf: copy) }
    }

    private func replaceLabels(_ copy: URL, _ manifest: inout JSON, _ text: String) throws {
        try Data(text.utf8).write(to: copy.appendingPathComponent("labels.txt"))
        manifest["files"]?[1] = listed("labels.txt", "labels", Data(text.utf8))
    }

    private func listed(_ path: String, _ role: String, _ content: Data) -> JSON {
        .object([
            "path": .text(path),
            "role": .text(role),
            "sha256": .text(SHA256.hexadecimal(content)),
            "size_bytes": .int(content.count)
        ])
    }
}
