import Synchronization

/// Makes names for requests: eight characters, no two alike in a process before a thousand billion requests.
final class RequestIDs: Sendable {
    private static let alphabet = Array("0123456789abcdefghjkmnpqrstvwxyz".utf8)
    private let next: Atomic<UInt64>

    /// - Parameter start: random, so that requests before and after a restart don't have the same names.
    init(start: UInt64 = .random(in: 0...UInt64.max)) {
        next = Atomic(start)
    }

    func make() -> String {
        var number = next.wrappingAdd(1, ordering: .relaxed).newValue
        return String(unsafeUninitializedCapacity: 8) { buffer in
            for index in stride(from: 7, through: 0, by: -1) {
                buffer[index] = Self.alphabet[Int(number & 31)]
                number >>= 5
            }
            return 8
        }
    }
}
