import DMFClassifier
import XCTest

@testable import DMFDemo

final class GeometryTests: XCTestCase {
    func testAPictureIsFittedInTheMiddle() {
        let frame = fitted(CGSize(width: 200, height: 100), in: CGSize(width: 100, height: 100))
        XCTAssertEqual(frame, CGRect(x: 0, y: 25, width: 100, height: 50))
    }

    func testTheCropIsWhatPreprocessingCuts() throws {
        var spec = try ModelPackage(contentsOf: Fixtures.packageFolder).manifest.input
        (spec.resize, spec.cropWidth, spec.cropHeight) = (256, 224, 224)
        let frame = CGRect(x: 0, y: 0, width: 512, height: 256)
        XCTAssertEqual(crop(of: frame, spec), CGRect(x: 144, y: 16, width: 224, height: 224))
        spec.cropWidth = 2000
        XCTAssertEqual(crop(of: frame, spec).width, 512)
    }

    func testADrawingIsItsStrokes() {
        var drawing = Drawing()
        let size = CGSize(width: 10, height: 10)
        drawing.draw(to: CGPoint(x: 5, y: 5), in: size)
        XCTAssertTrue(drawing.isUnfinished)
        drawing.lift()
        drawing.draw(to: CGPoint(x: 0, y: 10), in: size)
        drawing.draw(to: CGPoint(x: 10, y: 0), in: size)
        XCTAssertEqual(drawing.strokes, [[CGPoint(x: 0.5, y: 0.5)], [CGPoint(x: 0, y: 1), CGPoint(x: 1, y: 0)]])
        let frame = CGRect(x: 1, y: 1, width: 2, height: 2)
        XCTAssertEqual(points(of: drawing.strokes[0], in: frame), [CGPoint(x: 2, y: 2), CGPoint(x: 2, y: 2)])
        XCTAssertEqual(points(of: drawing.strokes[1], in: frame), [CGPoint(x: 1, y: 3), CGPoint(x: 3, y: 1)])
        drawing.clear()
        XCTAssertEqual(drawing, Drawing())
    }

    func testAHugePictureIsHalvedAsLongAsItIsLargeEnough() {
        XCTAssertEqual(decodedSide(width: 4000, height: 4000, resize: 256), 4000)
        XCTAssertEqual(decodedSide(width: 4032, height: 6048, resize: 256), 3024)
        XCTAssertEqual(decodedSide(width: 40_000, height: 1000, resize: 256), 40_000)
        XCTAssertEqual(decodedSide(width: 12_000, height: 9000, resize: 256), 3000)
    }
}
