import Foundation

/// Whether the app is in front, and whether it has been since ``watch()``; for any thread.
final class Foreground: @unchecked Sendable { // what varies is read and written under the lock only
    private let lock = NSLock()
    private var isActive = false
    private var wasLost = false

    func set(active: Bool) {
        lock.withLock {
            isActive = active
            wasLost = wasLost || !active
        }
    }

    func watch() {
        lock.withLock { wasLost = !isActive }
    }

    /// False once the app has been left, however briefly, since ``watch()``.
    var wasKept: Bool { lock.withLock { !wasLost } }

    /// Waits until the app is in front, but no longer than five seconds: an app is launched before it is seen.
    func arrive() async {
        for _ in 0..<100 where !lock.withLock({ isActive }) {
            try? await Task.sleep(nanoseconds: 50_000_000)
        }
    }
}
