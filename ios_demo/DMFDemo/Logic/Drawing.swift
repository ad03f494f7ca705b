import Foundation

/// Strokes of points in 0..1 of a square.
struct Drawing: Equatable, Sendable {
    /// Of the square's side.
    static let strokeWidth: CGFloat = 0.05

    private(set) var strokes: [[CGPoint]] = []
    private(set) var isUnfinished = false
    var isWhiteOnBlack = false

    /// A finger went to `point` of a square pad of `size`.
    mutating func draw(to point: CGPoint, in size: CGSize) {
        let place = CGPoint(x: point.x / size.width, y: point.y / size.height)
        if isUnfinished {
            strokes[strokes.count - 1].append(place)
        } else {
            strokes.append([place])
            isUnfinished = true
        }
    }

    /// The finger was lifted.
    mutating func lift() {
        isUnfinished = false
    }

    mutating func clear() {
        strokes = []
        isUnfinished = false
    }
}

/// A stroke where it lies in the square `frame`; a single point is a line to itself, which is a dot.
func points(of stroke: [CGPoint], in frame: CGRect) -> [CGPoint] {
    let points = stroke.map { CGPoint(x: frame.minX + $0.x * frame.width, y: frame.minY + $0.y * frame.height) }
    return points.count == 1 ? points + points : points
}
