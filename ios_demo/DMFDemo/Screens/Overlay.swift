import DMFClassifier
import SwiftUI

/// What is drawn over a picture: a frame around what the network sees of it, and the objects that it found.
struct Overlay {
    let input: InputSpec?
    let answer: Answer?
    let labels: [String]?

    /// Over a picture that is shown in `frame`.
    func draw(in context: GraphicsContext, over frame: CGRect) {
        if let input { context.stroke(Path(seen(of: frame, input)), with: .color(.yellow), lineWidth: 2) }
        guard let answer else { return }
        for mark in answer.marks(labels).reversed() { // the surest on top
            let box = place(mark.box, width: answer.width, height: answer.height, in: frame)
            context.stroke(Path(box), with: .color(.green), lineWidth: 3)
            let text = context.resolve(Text(mark.caption).font(.footnote).foregroundColor(.black))
            let caption = captionPlace(text.measure(in: frame.size), of: box, in: frame)
            context.fill(Path(caption), with: .color(.green))
            context.draw(text, in: caption)
        }
    }
}
