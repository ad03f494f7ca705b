import XCTest

@testable import DMFClassifier

final class JSONTests: XCTestCase {
    func testEveryKindOfValueIsReadAndWritten() throws {
        let text = #"{"a":null,"b":true,"c":1,"d":1.5,"e":"é/\"","f":[0,false],"g":{}}"#
        let json = try JSON(parsing: text)
        XCTAssertEqual(json["b"], .bool(true))
        XCTAssertEqual(json["c"], .int(1))
        XCTAssertEqual(json["f"], .list([.int(0), .bool(false)]))
        XCTAssertEqual(String(bytes: try json.data(), encoding: .utf8), text)
    }

    /// Foundation's NSNumber would take each for the other.
    func testTruthIsNoNumberAndANumberNoTruth() throws {
        XCTAssertNil(try JSON(parsing: "[1]")[0]?.bool)
        XCTAssertNil(try JSON(parsing: "[true]")[0]?.int)
        XCTAssertNil(try JSON(parsing: "[true]")[0]?.number)
        XCTAssertNil(try JSON(parsing: "[8.5]")[0]?.int)
        XCTAssertEqual(try JSON(parsing: "[8]")[0]?.number, 8)
    }

    func testWhatIsNoNumberIsNeverWritten() {
        for value in [Double.nan, .infinity, -.infinity] {
            XCTAssertThrowsError(try JSON.double(value).data())
        }
    }

    func testWhatIsNilIsNull() {
        XCTAssertEqual([JSON(nil as Int?), JSON(nil as Bool?), JSON(nil as String?)], [.null, .null, .null])
        XCTAssertEqual([JSON(0), JSON(false), JSON("")], [.int(0), .bool(false), .text("")])
    }
}
