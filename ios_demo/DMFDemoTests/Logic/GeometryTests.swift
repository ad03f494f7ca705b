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
        (spec.fit, spec.cropWidth, spec.cropHeight) = (.crop(resize: 256), 224, 224)
        let frame = CGRect(x: 0, y: 0, width: 512, height: 256)
        XCTAssertEqual(seen(of: frame, spec), CGRect(x: 144, y: 16, width: 224, height: 224))
        spec.cropWidth = 2000
        XCTAssertEqual(seen(of: frame, spec).width, 512)
        spec.fit = .pad
        XCTAssertEqual(seen(of: frame, spec), frame, "of a padded picture nothing is cut off")
    }

    func testABoxIsPlacedInThePictureThatIsShown() {
        let frame = CGRect(x: 10, y: 20, width: 100, height: 50)
        let box = Box(x1: 20, y1: 10, x2: 120, y2: 60)
        let placed = place(box, width: 200, height: 100, in: frame)
        XCTAssertEqual(placed, CGRect(x: 20, y: 25, width: 50, height: 25))
        let whole = Box(x1: 0, y1: 0, x2: 200, y2: 100)
        XCTAssertEqual(place(whole, width: 200, height: 100, in: frame), frame)
    }

    func testACaptionIsInTheCornerOfItsBoxAndWhole() {
        let frame = CGRect(x: 10, y: 20, width: 100, height: 50)
        let size = CGSize(width: 40, height: 10)
        for (corner, origin) in [
            (CGPoint(x: 30, y: 40), CGPoint(x: 30, y: 40)), (CGPoint(x: 105, y: 65), CGPoint(x: 70, y: 60)),
            (.zero, CGPoint(x: 10, y: 20))
        ] {
            let box = CGRect(origin: corner, size: CGSize(width: 5, height: 5))
            XCTAssertEqual(captionPlace(size, of: box, in: frame), CGRect(origin: origin, size: size))
        }
        let wide = captionPlace(CGSize(width: 200, height: 10), of: frame, in: frame)
        XCTAssertEqual(wide, CGRect(x: 10, y: 20, width: 200, height: 10), "its beginning can be read")
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

    func testAHugePictureIsHalvedAsLongAsItIsLargeEnough() throws {
        var spec = try ModelPackage(contentsOf: Fixtures.packageFolder).manifest.input
        spec.fit = .crop(resize: 256)
        XCTAssertEqual(decodedSide(width: 4000, height: 4000, spec), 4000)
        XCTAssertEqual(decodedSide(width: 4032, height: 6048, spec), 3024)
        XCTAssertEqual(decodedSide(width: 40_000, height: 1000, spec), 40_000)
        XCTAssertEqual(decodedSide(width: 12_000, height: 9000, spec), 3000)
        (spec.fit, spec.cropHeight, spec.cropWidth) = (.pad, 800, 1344) // 12 000 x 9000 px become 1066 x 800
        XCTAssertEqual(decodedSide(width: 12_000, height: 9000, spec), 6000)
        XCTAssertEqual(decodedSide(width: 8000, height: 6000, spec), 8000, "half of it would be less than 4 x 800")
    }
}
