import DMFClassifier
import XCTest

@testable import DMFDemo

final class PackageShelfTests: XCTestCase {
    func testAPackageIsAddedOnceAndRemoved() async throws {
        try await withFolder { folder in
            let shelf = PackageShelf(embedded: nil, added: folder.appendingPathComponent("packages"))
            XCTAssertEqual(shelf.list(), [])
            let added = try shelf.add(Fixtures.packageFolder)
            XCTAssertEqual(shelf.list().map(\.folder.path), [added.path])
            XCTAssertEqual(try ModelPackage(contentsOf: added).manifest.name, shelf.list()[0].manifest?.name)
            XCTAssertThrowsError(try shelf.add(Fixtures.packageFolder)) { error in
                XCTAssertTrue(error.oneLine.hasSuffix("is in this app already; remove it first"), error.oneLine)
            }
            try shelf.remove(shelf.list()[0])
            XCTAssertEqual(shelf.list(), [])
        }
    }

    func testADamagedPackageIsNotAdded() async throws {
        try await withFolder { folder in
            let damaged = folder.appendingPathComponent("damaged")
            try FileManager.default.copyItem(at: Fixtures.packageFolder, to: damaged)
            try Data("x".utf8).write(to: damaged.appendingPathComponent("labels.txt"))
            let shelf = PackageShelf(embedded: nil, added: folder.appendingPathComponent("packages"))
            XCTAssertThrowsError(try shelf.add(damaged)) { error in
                XCTAssertTrue(error.oneLine.contains("labels.txt was altered"), error.oneLine)
            }
            XCTAssertEqual(shelf.list(), [])
        }
    }

    func testAPackageIsFoundByItsFolderOrItsName() async throws {
        try await withFolder { folder in
            let pushed = folder.appendingPathComponent("packages/pushed")
            try FileManager.default.createDirectory(
                at: pushed.deletingLastPathComponent(), withIntermediateDirectories: true
            )
            try FileManager.default.copyItem(at: Fixtures.packageFolder, to: pushed)
            let embedded = Fixtures.packageFolder.deletingLastPathComponent()
            let shelf = PackageShelf(embedded: embedded, added: pushed.deletingLastPathComponent())
            let name = try ModelPackage(contentsOf: pushed).manifest.name
            XCTAssertEqual(try shelf.find("pushed").path, pushed.path)
            XCTAssertEqual(try shelf.find(name).path, pushed.path, "what was added comes before what is embedded")
            XCTAssertThrowsError(try shelf.find("other"))
            let part = try XCTUnwrap(shelf.list().first(where: \.isEmbedded))
            XCTAssertThrowsError(try shelf.remove(part))
        }
    }

    func testAHostRemovesWhatItPutThereAndNothingElse() async throws {
        try await withFolder { folder in
            let packages = folder.appendingPathComponent("packages")
            for name in ["pushed-0", "pushed-1", "mine"] {
                try FileManager.default.createDirectory(
                    at: packages.appendingPathComponent(name), withIntermediateDirectories: true
                )
            }
            let embedded = Fixtures.packageFolder.deletingLastPathComponent()
            let shelf = PackageShelf(embedded: embedded, added: packages)
            let part = try XCTUnwrap(shelf.list().first(where: \.isEmbedded)).folder
            shelf.removeAdded(["", "..", ".", "packages", "absent", part.lastPathComponent])
            XCTAssertEqual(shelf.list().filter { !$0.isEmbedded }.count, 3)
            shelf.removeAdded(["pushed-0", "pushed-1"])
            XCTAssertEqual(shelf.list().filter { !$0.isEmbedded }.map(\.folder.lastPathComponent), ["mine"])
            XCTAssertTrue(FileManager.default.fileExists(atPath: part.path))
        }
    }

    func testADamagedPackageStaysInTheList() async throws {
        try await withFolder { folder in
            try FileManager.default.createDirectory(
                at: folder.appendingPathComponent("empty"), withIntermediateDirectories: true
            )
            let shelf = PackageShelf(embedded: nil, added: folder)
            XCTAssertEqual(shelf.list().map(\.title), ["empty (damaged)"])
            XCTAssertEqual(shelf.list().map(\.manifest), [nil])
        }
    }
}
