// Swift
public struct Path {
    public init() { fatalError() }
    public init(_ rect: CGRect) { fatalError() }
    public mutating func addLines(_ points: [CGPoint]) { fatalError() }
}

public struct StrokeStyle {
    public init(lineWidth: CGFloat = 1, lineCap: CGLineCap = .round, lineJoin: CGLineJoin = .round) { fatalError() }
}

public struct GraphicsContext {
    public struct Shading {
        public static func color(_ colour: Color) -> Shading { fatalError() }
    }

    public struct ResolvedText {
        public func measure(in size: CGSize) -> CGSize { fatalError() }
    }

    public func resolve(_ text: Text) -> ResolvedText { fatalError() }
    public func draw(_ text: ResolvedText, in rect: CGRect) { fatalError() }
    public func draw(_ image: Image, in rect: CGRect) { fatalError() }
    public func fill(_ path: Path, with shading: Shading) { fatalError() }
    public func stroke(_ path: Path, with shading: Shading, style: StrokeStyle) { fatalError() }
    public func stroke(_ path: Path, with shading: Shading, lineWidth: CGFloat = 1) { fatalError() }
}

public struct Canvas<Symbols: View>: View {
    public init(renderer: @escaping (inout GraphicsContext, CGSize) -> Void) where Symbols == EmptyView { fatalError() }
    public var body: Never { fatalError() }
}

public protocol Gesture {
    associatedtype Value
}

public struct ChangedGesture<Value>: Gesture {
    public func onEnded(_ action: @escaping (Value) -> Void) -> ChangedGesture<Value> { fatalError() }
}

public struct DragGesture: Gesture {
    public struct Value {
        public var location: CGPoint { fatalError() }
    }

    public init(minimumDistance: CGFloat = 10) { fatalError() }
    public func onChanged(_ action: @escaping (Value) -> Void) -> ChangedGesture<Value> { fatalError() }
}
