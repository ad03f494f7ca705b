// What Linux's C library has under the same name is taken from there, by Foundation.
import Glibc

@discardableResult public func getrusage(_ who: __rusage_who, _ usage: UnsafeMutablePointer<rusage>!) -> Int32 { fatalError() } // = getrusage()
@discardableResult public func sysctlbyname(_ name: UnsafePointer<CChar>!, _ old: UnsafeMutableRawPointer!, _ oldSize: UnsafeMutablePointer<Int>!, _ new: UnsafeMutableRawPointer!, _ newSize: Int) -> Int32 { fatalError() } // = sysctlbyname()
