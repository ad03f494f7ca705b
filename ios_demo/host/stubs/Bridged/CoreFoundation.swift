// Swift
// Toll-free bridging, which Linux has not: there a CFString is no other type than a String.
@_exported import Foundation

public typealias CFString = String
public typealias CFData = Data
public typealias CFDictionary = [AnyHashable: Any]
