import Foundation

public struct UTType: Sendable { // = UTType
    public static var folder: UTType { fatalError() } // = UTTypeFolder
}
