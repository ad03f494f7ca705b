import XCTest

@testable import DMFClassifier

final class PixelsTests: XCTestCase {
    private let interpolations = Interpolation.allCases

    func testTheSameSizeIsTheSamePicture() throws {
        let picture = try Images().picture("noise")
        for interpolation in interpolations {
            let resized = picture.resampled(
                width: picture.width, height: picture.height, interpolation: interpolation
            )
            XCTAssertEqual(resized, picture)
        }
    }

    func testOneColourStaysIt() {
        let picture = grey(7, 5) { _, _ in 201 }
        for interpolation in interpolations {
            for (width, height) in [(3, 2), (50, 31), (7, 40)] {
                let resized = picture.resampled(width: width, height: height, interpolation: interpolation)
                XCTAssertEqual(resized, grey(width, height) { _, _ in 201 })
            }
        }
    }

    func testARampOfAFourthOfTheSizeIsFourTimesAsSteep() {
        let ramp = grey(40, 3) { column, _ in UInt8(5 * column) }
        for interpolation in interpolations {
            let row = values(ramp.resampled(width: 10, height: 3, interpolation: interpolation))
            for column in 1...8 {
                let expected = 5 * ((Double(column) + 0.5) * 4 - 0.5)
                XCTAssertEqual(Double(row[column]), expected, accuracy: 1, "\(interpolation), \(column)")
            }
        }
    }

    /// Of each pair of new pixels, one lies a fourth of the way from its neighbour.
    func testBilinearEnlargementByHand() {
        let columns = grey(2, 1) { column, _ in column == 0 ? 0 : 100 }
        let wide = columns.resampled(width: 4, height: 1, interpolation: .bilinear)
        XCTAssertEqual(values(wide), [0, 25, 75, 100])
        let rows = grey(1, 2) { _, row in row == 0 ? 0 : 100 }
        XCTAssertEqual(values(rows.resampled(width: 1, height: 4, interpolation: .bilinear)), [0, 25, 75, 100])
    }

    /// The kernel with a = -0.5 overshoots an edge, which clips at 0 and 255 and not elsewhere.
    func testBicubicOvershootsAndIsClipped() throws {
        let grey100 = grey(8, 1) { column, _ in column < 4 ? 100 : 150 }
        let dark = values(grey100.resampled(width: 16, height: 1, interpolation: .bicubic))
        XCTAssertLessThan(try XCTUnwrap(dark.min()), 100)
        XCTAssertGreaterThan(try XCTUnwrap(dark.max()), 150)
        let black = grey(8, 1) { column, _ in column < 4 ? 0 : 255 }
        let edge = values(black.resampled(width: 16, height: 1, interpolation: .bicubic))
        XCTAssertEqual(Array(edge[5...6]), [0, 0])
        XCTAssertEqual(Array(edge[9...10]), [255, 255])
    }

    /// Two pixels a row and then padding, as a camera's frames have it.
    func testBGRAIsReadAndWrittenRowByRow() {
        let bgra: [UInt8] = [3, 2, 1, 255, 6, 5, 4, 255, 77, 77] + [9, 8, 7, 255, 12, 11, 10, 255, 77, 77]
        let pixels = bgra.withUnsafeBytes { Pixels(bgra: $0, width: 2, height: 2, bytesPerRow: 10) }
        XCTAssertEqual(pixels, Pixels(width: 2, height: 2, rgb: Array(1...12)))
        var written = [UInt8](repeating: 77, count: bgra.count)
        written.withUnsafeMutableBytes { pixels.write(bgra: $0, bytesPerRow: 10) }
        XCTAssertEqual(written, bgra)
    }

    private func grey(_ width: Int, _ height: Int, _ value: (Int, Int) -> UInt8) -> Pixels {
        let rgb = (0..<width * height * 3).map { value($0 / 3 % width, $0 / 3 / width) }
        return Pixels(width: width, height: height, rgb: rgb)
    }

    /// Of the first channel.
    private func values(_ image: Pixels) -> [UInt8] {
        (0..<image.width * image.height).map { image.rgb[$0 * 3] }
    }
}
