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
        XCTAssertEqual(compared, 4 * 7)
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

    func testAPictureSmallerThanTheCropIsRefused() throws {
        let images = try Images()
        var spec = try images.spec("nchw bicubic")
        spec.resize = 20
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
