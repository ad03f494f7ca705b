// Swift
@MainActor @preconcurrency public protocol View {
    associatedtype Body: View
    @ViewBuilder @MainActor @preconcurrency var body: Body { get }
}

extension Never: View {
    public var body: Never { fatalError() }
}

extension Optional: View where Wrapped: View {
    public var body: Never { fatalError() }
}

public struct EmptyView: View {
    public init() { fatalError() }
    public var body: Never { fatalError() }
}

public struct Group_<Content>: View {
    public var body: Never { fatalError() }
}

@resultBuilder public enum ViewBuilder {
    public static func buildBlock() -> EmptyView { fatalError() }
    public static func buildBlock<Content: View>(_ content: Content) -> Content { fatalError() }
    public static func buildBlock<each Content: View>(_ content: repeat each Content) -> Group_<(repeat each Content)> { fatalError() }
    public static func buildIf<Content: View>(_ content: Content?) -> Content? { fatalError() }
    public static func buildEither<A: View, B: View>(first: A) -> Group_<(A, B)> { fatalError() }
    public static func buildEither<A: View, B: View>(second: B) -> Group_<(A, B)> { fatalError() }
}

@MainActor @preconcurrency public protocol Scene {
    associatedtype Body: Scene
    @MainActor @preconcurrency var body: Body { get }
}

extension Never: Scene {}

@MainActor @preconcurrency public protocol App {
    associatedtype Body: Scene
    @MainActor @preconcurrency var body: Body { get }
    @MainActor @preconcurrency init()
}

extension App {
    public static func main() { fatalError() }
}

public struct WindowGroup<Content: View>: Scene {
    public init(@ViewBuilder content: () -> Content) { fatalError() }
    public var body: Never { fatalError() }
}

public struct Modified: View {
    public var body: Never { fatalError() }
}

extension View {
    public func padding() -> Modified { fatalError() }
    public func font(_ font: Font?) -> Modified { fatalError() }
    public func foregroundColor(_ colour: Color?) -> Modified { fatalError() }
    public func monospacedDigit() -> Modified { fatalError() }
    public func textSelection<S: TextSelectability>(_ selectability: S) -> Modified { fatalError() }
    public func disabled(_ disabled: Bool) -> Modified { fatalError() }
    public func aspectRatio(_ ratio: CGFloat? = nil, contentMode: ContentMode) -> Modified { fatalError() }
    public func accessibilityLabel(_ label: String) -> Modified { fatalError() }
    public func accessibilityElement(children: AccessibilityChildBehavior = .ignore) -> Modified { fatalError() }
    public func gesture<G: Gesture>(_ gesture: G) -> Modified { fatalError() }
    public func navigationTitle(_ title: String) -> Modified { fatalError() }
    public func navigationBarTitleDisplayMode(_ mode: NavigationBarItem.TitleDisplayMode) -> Modified { fatalError() }
    public func pickerStyle<S: PickerStyle>(_ style: S) -> Modified { fatalError() }
    public func labelStyle<S: LabelStyle>(_ style: S) -> Modified { fatalError() }
    public func tag<V: Hashable>(_ tag: V) -> Modified { fatalError() }
    public func tabItem<V: View>(@ViewBuilder _ label: () -> V) -> Modified { fatalError() }
    public func onAppear(perform action: (() -> Void)? = nil) -> Modified { fatalError() }
    public func onChange<V: Equatable>(of value: V, perform action: @escaping (V) -> Void) -> Modified { fatalError() }
    public func task(priority: TaskPriority = .userInitiated, @_inheritActorContext _ action: @escaping @Sendable () async -> Void) -> Modified { fatalError() }
    public func task<T: Equatable>(id value: T, priority: TaskPriority = .userInitiated, @_inheritActorContext _ action: @escaping @Sendable () async -> Void) -> Modified { fatalError() }
    public func fileImporter(isPresented: Binding<Bool>, allowedContentTypes: [UTType], onCompletion: @escaping (Result<URL, any Error>) -> Void) -> Modified { fatalError() }
}

public struct AccessibilityChildBehavior {
    public static let ignore = AccessibilityChildBehavior()
    public static let combine = AccessibilityChildBehavior()
}

public enum ContentMode {
    case fit
    case fill
}

public struct NavigationBarItem {
    public enum TitleDisplayMode {
        case automatic
        case inline
        case large
    }
}

public protocol TextSelectability {}

public struct EnabledTextSelectability: TextSelectability {}

extension TextSelectability where Self == EnabledTextSelectability {
    public static var enabled: EnabledTextSelectability { fatalError() }
}

public protocol PickerStyle {}

public struct SegmentedPickerStyle: PickerStyle {}

extension PickerStyle where Self == SegmentedPickerStyle {
    public static var segmented: SegmentedPickerStyle { fatalError() }
}

public protocol LabelStyle {}

public struct IconOnlyLabelStyle: LabelStyle {}

extension LabelStyle where Self == IconOnlyLabelStyle {
    public static var iconOnly: IconOnlyLabelStyle { fatalError() }
}
