import XCTest

@testable import DMFClassifier

final class PreprocessTests: XCTestCase {
    func testEveryInputIsPythonsBitForBit() throws {
        let images = try Images()
        var compared = 0
        for (specName, spec) in images.specs {
            for name in Images.names {
                let input = try floats(Preprocess.toInput(images.picture(name), spec))
                XCTAssertEqual(bits(input), bits(try images.input(specName, name)), "\(specName) of \(name)")
                compared += 1
            }
        }
        XCTAssertEqual(compared, 6 * 7)
    }

    func testAnotherInterpolationIsNoticed() throws {
        let images = try Images()
        for (name, spec) in images.specs {
            var other = spec
            other.interpolation = spec.interpolation == .bicubic ? .bilinear : .bicubic
            let input = try floats(Preprocess.toInput(images.picture("photograph"), other))
            XCTAssertNotEqual(bits(input), bits(try images.input(name, "photograph")), name)
        }
    }

    /// Columns come first in a tall picture that shrinks; in the other order it is of other roundings.
    func testTheOrderOfThePassesIsNoticed() throws {
        let picture = try Images().picture("tall")
        let resized = picture.resampled(width: 3, height: 24, interpolation: .bilinear)
        let rowsFirst = picture.resampled(width: 3, height: 83, interpolation: .bilinear)
            .resampled(width: 3, height: 24, interpolation: .bilinear)
        XCTAssertNotEqual(resized, rowsFirst)
        XCTAssertEqual(zip(resized.rgb, rowsFirst.rgb).map { abs(Int($0) - Int($1)) }.max(), 1)
    }

    func testAnotherLayoutIsNoticed() throws {
        let images = try Images()
        var spec = try images.spec("nchw bicubic")
        spec.layout = .nhwc
        let input = try floats(Preprocess.toInput(images.picture("noise"), spec))
        XCTAssertNotEqual(bits(input), bits(try images.input("nchw bicubic", "noise")))
    }

    func testACropThatRoundsHalvesUpIsNoticed() throws {
        let images = try Images()
        let spec = try images.spec("in graph") // 20 px, of which 15 and 19 are kept: 2.5 and 0.5 px before them
        let picture = try images.picture("exact")
        let resized = picture.resampled(width: 20, height: 20, interpolation: spec.interpolation)
        let kept = try floats(Preprocess.toInput(picture, spec))
        XCTAssertEqual(kept[0], Float(resized.rgb[2 * 20 * 3]))
        XCTAssertNotEqual(kept[0], Float(resized.rgb[(3 * 20 + 1) * 3]))
    }

    func testAnImageInputIsTheCropAsItIs() throws {
        let images = try Images()
        var spec = try images.spec("in graph")
        let tensor = try floats(Preprocess.toInput(images.picture("photograph"), spec))
        spec.dtype = .image
        guard case .image(let pixels) = try Preprocess.toInput(images.picture("photograph"), spec) else {
            return XCTFail("no image")
        }
        XCTAssertEqual([pixels.width, pixels.height], [19, 15])
        XCTAssertEqual(pixels.rgb.map(Float.init), tensor)
    }

    /// As runtime.preprocess.resized_size says; checked by hand.
    func testAPictureIsAsLargeAsFitsIfItIsPadded() throws {
        var spec = try Images().spec("padded") // 40 x 24 px
        for (width, height, resizedWidth, resizedHeight) in [
            (40, 24, 40, 24), (80, 24, 40, 12), (20, 24, 20, 24), (97, 9, 40, 3), (11, 83, 3, 24), (1000, 1, 40, 1),
            (1, 1000, 1, 24), (1, 1, 24, 24)
        ] {
            let size = spec.resized(width: width, height: height)
            XCTAssertEqual([size.width, size.height], [resizedWidth, resizedHeight], "\(width) x \(height)")
        }
        spec.fit = .crop(resize: 10)
        let cropped = spec.resized(width: 97, height: 9)
        XCTAssertEqual([cropped.width, cropped.height], [107, 10])
    }

    func testAMarginOfAnotherColourIsNoticed() throws {
        let images = try Images()
        var spec = try images.spec("padded")
        spec.mean[1] += 2.0 / 255
        let input = try floats(Preprocess.toInput(images.picture("tall"), spec))
        spec.mean[1] -= 2.0 / 255
        XCTAssertNotEqual(bits(input), bits(try images.input("padded", "tall")))
        let whole = try Preprocess.fit(images.picture("tall"), spec)
        XCTAssertEqual(Array(whole.rgb.suffix(3)), [124, 116, 104])
    }

    func testABoxOfTheInputIsOneOfThePicture() throws {
        var spec = try Images().spec("padded") // 80 x 100 px become 19 x 24 of 40 x 24
        let box = spec.inPicture(Box(x1: 9.5, y1: 6, x2: 30, y2: 25), width: 80, height: 100)
        XCTAssertEqual(box, Box(x1: 40, y1: 25, x2: 80, y2: 100), "it ends where the picture does")
        let before = spec.inPicture(Box(x1: -1, y1: -1, x2: 0, y2: 24), width: 80, height: 100)
        XCTAssertEqual(before, Box(x1: 0, y1: 0, x2: 0, y2: 100))
        (spec.fit, spec.cropWidth, spec.cropHeight) = (.crop(resize: 50), 40, 40) // 100 x 50 px; 30, 5 px are cut off
        let cropped = spec.inPicture(Box(x1: 0, y1: 0, x2: 40, y2: 40), width: 200, height: 100)
        XCTAssertEqual(cropped, Box(x1: 60, y1: 10, x2: 140, y2: 90))
    }

    func testAPictureSmallerThanTheCropIsRefused() throws {
        let images = try Images()
        var spec = try images.spec("nchw bicubic")
        spec.fit = .crop(resize: 20)
        assertPackageError(
            "the picture is 20 x 20 px once resized to 20, smaller than the crop of 24 x 24; "
                + "give a wider or a taller one"
        ) { try Preprocess.toInput(images.picture("exact"), spec) }
    }

    private func floats(_ input: ModelInput) throws -> [Float] {
        if case .tensor(let values) = input { return values }
        return try XCTUnwrap(nil, "not a tensor")
    }

    private func bits(_ values: [Float]) -> [UInt32] {
        values.map(\.bitPattern)
    }
}
