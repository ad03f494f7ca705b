import DMFClassifier
import SwiftUI

/// A square to draw in with a finger.
struct DrawingPad: View {
    @Binding var drawing: Drawing
    let overlay: Overlay

    var body: some View {
        VStack {
            GeometryReader { space in
                Canvas { context, size in draw(in: context, size) }
                    .gesture(
                        DragGesture(minimumDistance: 0)
                            .onChanged { touch in drawing.draw(to: touch.location, in: space.size) }
                            .onEnded { _ in drawing.lift() }
                    )
            }
            .aspectRatio(1, contentMode: .fit)
            .accessibilityLabel("Draw here with a finger; yellow frames what the model sees, green what it found")
            HStack {
                Button("Clear", action: { drawing.clear() })
                Spacer()
                Button("Swap black and white", action: { drawing.isWhiteOnBlack.toggle() })
            }
        }
    }

    private func draw(in context: GraphicsContext, _ size: CGSize) {
        let frame = fitted(CGSize(width: 1, height: 1), in: size)
        context.fill(Path(frame), with: .color(drawing.isWhiteOnBlack ? .black : .white))
        let style = StrokeStyle(lineWidth: frame.width * Drawing.strokeWidth, lineCap: .round, lineJoin: .round)
        let colour = drawing.isWhiteOnBlack ? Color.white : Color.black
        for stroke in drawing.strokes {
            var path = Path()
            path.addLines(points(of: stroke, in: frame))
            context.stroke(path, with: .color(colour), style: style)
        }
        overlay.draw(in: context, over: frame)
    }
}
