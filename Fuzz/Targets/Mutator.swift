/// Makes inputs out of inputs, the same ones for the same seed.
///
/// Without the feedback of coverage that libFuzzer has; enough to notice in every run of the tests that something broke.
public struct Mutator {
    private var state: UInt64

    public init(seed: UInt64) { state = seed }

    private mutating func next(below limit: Int) -> Int {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return Int(state % UInt64(max(limit, 1)))
    }

    /// What breaks parsers: brackets, escapes, edges of numbers and of UTF-8.
    private static let tokens: [[UInt8]] =
        [
            "{", "}", "[", "]", "\"", ":", ",", "\\u0000", "\\ud800", "\\udc00", "\\", "-0", "1e400",
            "9007199254740992", "null", "*", "?",
            "@", "!", "$", "%", "::", "[::1]", "\"a\":1,", "\u{E9}", "\u{10FFFF}", "m.room.member",
        ].map { Array($0.utf8) } + [[0x80], [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xFF], [0x00], [0x0A]]

    /// A few changes to `input`, or a mixture with `other`.
    public mutating func mutate(_ input: [UInt8], with other: [UInt8]) -> [UInt8] {
        var bytes = input
        for _ in 0...next(below: 4) {
            let place = next(below: bytes.count + 1)
            switch next(below: 6) {
            case 0 where !bytes.isEmpty: bytes[min(place, bytes.count - 1)] ^= UInt8(1 << next(below: 8))
            case 1 where !bytes.isEmpty:
                bytes.removeSubrange(min(place, bytes.count - 1)..<min(place + next(below: 8) + 1, bytes.count))
            case 2: bytes.insert(contentsOf: Self.tokens[next(below: Self.tokens.count)], at: place)
            case 3: bytes.insert(contentsOf: bytes.suffix(bytes.count - place).prefix(next(below: 32)), at: place)
            case 4: bytes = Array(bytes.prefix(place)) + other.suffix(next(below: other.count + 1))
            default: bytes.insert(UInt8(next(below: 256)), at: place)
            }
        }
        return bytes
    }
}
