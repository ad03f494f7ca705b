// Swift
public struct Text: View {
    public init<S: StringProtocol>(_ content: S) { fatalError() }
    public func bold() -> Text { fatalError() }
    public func monospacedDigit() -> Text { fatalError() }
    public func font(_ font: Font?) -> Text { fatalError() }
    public func foregroundColor(_ colour: Color?) -> Text { fatalError() }
    public var body: Never { fatalError() }
}

public struct Font {
    public static let headline = Font()
    public static let footnote = Font()
}

public struct Color: View {
    public static let red = Color()
    public static let yellow = Color()
    public static let green = Color()
    public static let black = Color()
    public static let white = Color()
    public static let primary = Color()
    public static let secondary = Color()
    public var body: Never { fatalError() }
}

public struct Image: View {
    public init(decorative image: CGImage, scale: CGFloat) { fatalError() }
    public var body: Never { fatalError() }
}

public struct Label<Title: View, Icon: View>: View {
    public init(_ title: String, systemImage: String) where Title == Text, Icon == Image { fatalError() }
    public var body: Never { fatalError() }
}

public struct ButtonRole {
    public static let destructive = ButtonRole()
    public static let cancel = ButtonRole()
}

public struct Button<Label: View>: View {
    public init(_ title: String, action: @escaping @MainActor () -> Void) where Label == Text { fatalError() }
    public init(_ title: String, role: ButtonRole?, action: @escaping @MainActor () -> Void) where Label == Text { fatalError() }
    public var body: Never { fatalError() }
}

public struct Toggle<Label: View>: View {
    public init(_ title: String, isOn: Binding<Bool>) where Label == Text { fatalError() }
    public var body: Never { fatalError() }
}

public struct Stepper<Label: View>: View {
    public init<V: Strideable>(_ title: String, value: Binding<V>, in bounds: ClosedRange<V>, step: V.Stride = 1) where Label == Text { fatalError() }
    public var body: Never { fatalError() }
}

public struct Picker<Label: View, Selection: Hashable, Content: View>: View {
    public init(_ title: String, selection: Binding<Selection>, @ViewBuilder content: () -> Content) where Label == Text { fatalError() }
    public var body: Never { fatalError() }
}

public struct Menu<Label: View, Content: View>: View {
    public init(@ViewBuilder content: () -> Content, @ViewBuilder label: () -> Label) { fatalError() }
    public var body: Never { fatalError() }
}

public struct ProgressView<Label: View>: View {
    public init(_ title: String) where Label == Text { fatalError() }
    public var body: Never { fatalError() }
}

public struct ShareLink<Label: View>: View {
    public init(_ title: String, item: URL) where Label == Text { fatalError() }
    public var body: Never { fatalError() }
}
