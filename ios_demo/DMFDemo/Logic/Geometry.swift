import DMFClassifier
import Foundation

/// The largest frame with the sides' proportion of `size` in the middle of `space`.
func fitted(_ size: CGSize, in space: CGSize) -> CGRect {
    let scale = min(space.width / size.width, space.height / size.height)
    let fitted = CGSize(width: size.width * scale, height: size.height * scale)
    return centred(fitted, in: CGRect(origin: .zero, size: space))
}

/// What of a picture that is shown in `frame` the network sees.
func crop(of frame: CGRect, _ spec: InputSpec) -> CGRect {
    let scale = min(frame.width, frame.height) / CGFloat(spec.resize)
    let width = min(CGFloat(spec.cropWidth) * scale, frame.width)
    let height = min(CGFloat(spec.cropHeight) * scale, frame.height)
    return centred(CGSize(width: width, height: height), in: frame)
}

private func centred(_ size: CGSize, in frame: CGRect) -> CGRect {
    CGRect(
        x: frame.midX - size.width / 2, y: frame.midY - size.height / 2, width: size.width, height: size.height
    )
}
