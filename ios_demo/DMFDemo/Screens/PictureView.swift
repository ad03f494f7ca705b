import CoreGraphics
import DMFClassifier
import SwiftUI

/// A picture as large as fits, and a frame around what of it the network sees.
struct PictureView: View {
    let picture: CGImage?
    let input: InputSpec?

    var body: some View {
        Canvas { context, size in
            guard let picture else { return }
            let frame = fitted(CGSize(width: picture.width, height: picture.height), in: size)
            context.draw(Image(decorative: picture, scale: 1), in: frame)
            if let input { context.stroke(Path(crop(of: frame, input)), with: .color(.yellow), lineWidth: 2) }
        }
        .aspectRatio(1, contentMode: .fit)
        .accessibilityLabel("The picture; the frame shows what the model sees")
    }
}
