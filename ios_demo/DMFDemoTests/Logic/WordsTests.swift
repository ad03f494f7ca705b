import DMFClassifier
import XCTest

@testable import DMFDemo

final class WordsTests: XCTestCase {
    private func verdict(_ error: Double?, budget: Double = 0.5, frozen: Bool = false) -> Verdict {
        let passed = !frozen && error.map { $0 <= budget } ?? false
        return Verdict(passed: passed, frozenRouting: frozen, image: "cat", maxAbsError: error, budgetAbsError: budget)
    }

    func testAVerdictIsTold() {
        XCTAssertEqual(
            words(verdict(0.123456)), "Self-test passed: the largest error is 0.123, of “cat”; 0.5 is allowed."
        )
        XCTAssertTrue(words(verdict(nil)).contains("off by infinitely much, 0.5 is allowed"))
        XCTAssertTrue(words(verdict(0, frozen: true)).contains("the weights chosen for the first one"))
        XCTAssertTrue(words(nil as Verdict?).contains("no golden vectors"))
        var other = verdict(1)
        other.isComplete = false
        XCTAssertTrue(words(other).contains("in “cat” it finds other objects than it must"))
        other.maxAbsError = nil
        XCTAssertTrue(words(other).contains("off by infinitely much"))
    }

    func testAnInfiniteErrorIsRemembered() async throws {
        try await withFolder { folder in
            let verdicts = Verdicts(file: folder.appendingPathComponent("v"), version: "1")
            try verdicts.remember(verdict(nil), "hash", .all)
            XCTAssertEqual(verdicts.find("hash", .all), verdict(nil))
            XCTAssertNil(verdicts.find("hash", .cpuOnly))
        }
    }

    func testEveryFlagAndUnitHasItsOwnWords() {
        XCTAssertEqual(Set(Flag.allCases.map { words($0) }).count, Flag.allCases.count)
        XCTAssertEqual(Set(ComputeUnits.allCases.map { words($0) }).count, ComputeUnits.allCases.count)
        XCTAssertEqual(Set(PostProcessing.allCases.map { words($0) }).count, PostProcessing.allCases.count)
    }

    func testAModelIsTold() async throws {
        try await withFolder { folder in
            let package = try ModelPackage(contentsOf: Fixtures.packageFolder)
            let verdicts = Verdicts(file: folder.appendingPathComponent("v"), version: "1")
            let told = facts(of: package, verdicts, FakeDevice().description)
            XCTAssertEqual(Set(told.map(\.id)).count, told.count)
            XCTAssertTrue(told[0].value.hasPrefix(package.manifest.model.variant))
            XCTAssertTrue(told[2].value.contains(package.artifactSHA256))
            let small = try ModelPackage(contentsOf: Fixtures.sizesFolder).functions[1]
            let toldOfIt = facts(of: small, verdicts, FakeDevice().description)
            XCTAssertTrue(toldOfIt[3].value.contains("the 6 × 6 px in the middle"), toldOfIt[3].value)
            XCTAssertTrue(toldOfIt[3].value.contains("how probable each class is"), toldOfIt[3].value)
            let detector = facts(
                of: try ModelPackage(contentsOf: Fixtures.detectorFolder), verdicts, FakeDevice().description
            )
            XCTAssertTrue(detector[3].value.contains("as large as fits into 8 × 8 px"), detector[3].value)
            XCTAssertTrue(
                detector[3].value.contains("at most 4 objects that are more than 0.25 sure; this app chooses"),
                detector[3].value
            )
            XCTAssertTrue(
                detector[4].value.contains("9 of 9 found are right, 9 must be found; a score is off by at most 1e-06"),
                detector[4].value
            )
        }
    }
}
