import Foundation

/// SHA-256 (FIPS 180-4); CryptoKit is on Apple's systems alone.
enum SHA256 {
    /// The hash of `data`, in lower-case hexadecimal.
    static func hexadecimal(_ data: Data) -> String {
        var state = initial
        let whole = data.count / blockBytes * blockBytes
        data.prefix(whole).withUnsafeBytes { compress($0, into: &state) }
        var rest = Array(data.suffix(data.count - whole)) + [0x80]
        while rest.count % blockBytes != blockBytes - 8 { rest.append(0) }
        let bits = UInt64(data.count) * 8
        withUnsafeBytes(of: bits.bigEndian) { rest.append(contentsOf: $0) }
        rest.withUnsafeBytes { compress($0, into: &state) }
        return (0..<state.scalarCount).map { hexadecimal(state[$0]) }.joined()
    }

    private static func compress(_ bytes: UnsafeRawBufferPointer, into state: inout SIMD8<UInt32>) {
        let roundConstants = rounds
        var words = [UInt32](repeating: 0, count: roundConstants.count)
        for block in stride(from: 0, to: bytes.count, by: blockBytes) {
            for index in 0..<16 {
                let word = bytes.loadUnaligned(fromByteOffset: block + 4 * index, as: UInt32.self)
                words[index] = UInt32(bigEndian: word)
            }
            for index in 16..<words.count {
                let (near, far) = (words[index - 2], words[index - 15])
                let sigma1 = rotated(near, 17) ^ rotated(near, 19) ^ (near >> 10)
                let sigma0 = rotated(far, 7) ^ rotated(far, 18) ^ (far >> 3)
                words[index] = sigma1 &+ words[index - 7] &+ sigma0 &+ words[index - 16]
            }
            var work = state // a to h in the standard
            for index in 0..<words.count {
                let sum1 = rotated(work[4], 6) ^ rotated(work[4], 11) ^ rotated(work[4], 25)
                let choice = (work[4] & work[5]) ^ (~work[4] & work[6])
                let one = work[7] &+ sum1 &+ choice &+ roundConstants[index] &+ words[index]
                let sum0 = rotated(work[0], 2) ^ rotated(work[0], 13) ^ rotated(work[0], 22)
                let majority = (work[0] & work[1]) ^ (work[0] & work[2]) ^ (work[1] & work[2])
                work = SIMD8(
                    one &+ sum0 &+ majority, work[0], work[1], work[2], work[3] &+ one, work[4], work[5], work[6]
                )
            }
            state &+= work
        }
    }

    private static func rotated(_ word: UInt32, _ bits: UInt32) -> UInt32 {
        (word >> bits) | (word << (32 - bits))
    }

    private static func hexadecimal(_ word: UInt32) -> String {
        let digits = String(word, radix: 16)
        return String(repeating: "0", count: 8 - digits.count) + digits
    }

    private static let blockBytes = 64

    /// The standard's constants: what follows the point in the roots of the first primes.
    private static let primes = (2...311).filter { number in !(2..<number).contains { number % $0 == 0 } }
    private static let initial = SIMD8(primes.prefix(8).map { fraction(Double($0).squareRoot()) })
    private static let rounds = primes.map { fraction(cbrt(Double($0))) }

    private static func fraction(_ root: Double) -> UInt32 {
        UInt32((root - root.rounded(.down)) * 0x1p32)
    }
}
