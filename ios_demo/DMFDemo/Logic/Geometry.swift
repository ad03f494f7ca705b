import DMFClassifier
import Foundation

/// The largest frame with the sides' proportion of `size` in the middle of `space`.
func fitted(_ size: CGSize, in space: CGSize) -> CGRect {
    let scale = min(space.width / size.width, space.height / size.height)
    let fitted = CGSize(width: size.width * scale, height: size.height * scale)
    return centred(fitted, in: CGRect(origin: .zero, size: space))
}

/// What of a picture that is shown in `frame` the network sees; all of it where it is padded.
func seen(of frame: CGRect, _ spec: InputSpec) -> CGRect {
    guard case .crop(let resize) = spec.fit else { return frame }
    let scale = min(frame.width, frame.height) / CGFloat(resize)
    let width = min(CGFloat(spec.cropWidth) * scale, frame.width)
    let height = min(CGFloat(spec.cropHeight) * scale, frame.height)
    return centred(CGSize(width: width, height: height), in: frame)
}

/// Where a box of a picture of `width` x `height` px lies if the picture is shown in `frame`.
func place(_ box: Box, width: Int, height: Int, in frame: CGRect) -> CGRect {
    let (across, down) = (frame.width / CGFloat(width), frame.height / CGFloat(height))
    return CGRect(
        x: frame.minX + box.x1 * across, y: frame.minY + box.y1 * down,
        width: (box.x2 - box.x1) * across, height: (box.y2 - box.y1) * down
    )
}

/// Where a caption of `size` is drawn: in the upper left corner of `box`, or as near as it is whole in `frame`.
func captionPlace(_ size: CGSize, of box: CGRect, in frame: CGRect) -> CGRect {
    let left = max(frame.minX, min(box.minX, frame.maxX - size.width))
    let top = max(frame.minY, min(box.minY, frame.maxY - size.height))
    return CGRect(origin: CGPoint(x: left, y: top), size: size)
}

private func centred(_ size: CGSize, in frame: CGRect) -> CGRect {
    CGRect(
        x: frame.midX - size.width / 2, y: frame.midY - size.height / 2, width: size.width, height: size.height
    )
}
