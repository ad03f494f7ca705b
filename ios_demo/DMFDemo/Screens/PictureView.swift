import CoreGraphics
import DMFClassifier
import SwiftUI

/// A picture as large as fits, and what is drawn over it.
struct PictureView: View {
    let picture: CGImage?
    let overlay: Overlay

    var body: some View {
        Canvas { context, size in
            guard let picture else { return }
            let frame = fitted(CGSize(width: picture.width, height: picture.height), in: size)
            context.draw(Image(decorative: picture, scale: 1), in: frame)
            overlay.draw(in: context, over: frame)
        }
        .aspectRatio(1, contentMode: .fit)
        .accessibilityLabel("The picture; yellow frames what the model sees, green what it found")
    }
}
