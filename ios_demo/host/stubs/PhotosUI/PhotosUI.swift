// Swift
@_exported import SwiftUI

public struct PHPickerFilter {
    public static var images: PHPickerFilter { fatalError() }
}

public protocol Transferable {}
extension Data: Transferable {}

public struct PhotosPickerItem: Equatable, Hashable, Sendable {
    public func loadTransferable<T: Transferable>(type: T.Type) async throws -> T? { fatalError() }
}

public struct PhotosPicker<Label: View>: View {
    public init(_ title: String, selection: Binding<PhotosPickerItem?>, matching filter: PHPickerFilter? = nil) where Label == Text { fatalError() }
    public var body: Never { fatalError() }
}
