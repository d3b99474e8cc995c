/// Unpadded Base64 in both alphabets (Appendices, Unpadded Base64).
public enum Base64 {
    public enum Alphabet: Sendable {
        case standard
        case urlSafe
    }

    private static let standardCharacters: StaticString =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    private static let urlSafeCharacters: StaticString =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

    public static func encode(_ bytes: some Collection<UInt8>, alphabet: Alphabet = .standard) -> String {
        func encode(_ input: UnsafeBufferPointer<UInt8>) -> String {
            String(unsafeUninitializedCapacity: characters(of: input.count)) { output in
                write(input, alphabet: alphabet, to: output)
            }
        }
        return bytes.withContiguousStorageIfAvailable(encode) ?? Array(bytes).withUnsafeBufferPointer(encode)
    }

    /// How many characters so many bytes take.
    public static func characters(of bytes: Int) -> Int { (bytes * 4 + 2) / 3 }

    /// Writes the characters of `input` to the beginning of `output`, which has room for them.
    ///
    /// - Returns: how many they are.
    @discardableResult
    public static func write(
        _ input: UnsafeBufferPointer<UInt8>, alphabet: Alphabet, to output: UnsafeMutableBufferPointer<UInt8>
    ) -> Int {
        let characters = (alphabet == .standard ? standardCharacters : urlSafeCharacters).utf8Start
        precondition(output.count >= Self.characters(of: input.count))
        var read = 0
        var written = 0
        while read + 3 <= input.count {
            let group = UInt32(input[read]) << 16 | UInt32(input[read + 1]) << 8 | UInt32(input[read + 2])
            output[written] = characters[Int(group >> 18)]
            output[written + 1] = characters[Int(group >> 12 & 63)]
            output[written + 2] = characters[Int(group >> 6 & 63)]
            output[written + 3] = characters[Int(group & 63)]
            read += 3
            written += 4
        }
        let rest = input.count - read
        guard rest > 0 else { return written }
        let group = UInt32(input[read]) << 16 | (rest == 2 ? UInt32(input[read + 1]) << 8 : 0)
        for place in 0...UInt32(rest) {
            output[written] = characters[Int(group >> (18 - 6 * place) & 63)]
            written += 1
        }
        return written
    }

    /// Accepts both alphabets, with and without padding, as the appendix recommends.
    ///
    /// Bits left over behind the last byte are ignored: the seed of the appendix's own test vectors has some.
    ///
    /// - Returns: nil for any other character, and for a length that no bytes encode to.
    public static func decode(_ text: String) -> [UInt8]? {
        var characters = Array(text.utf8)
        if characters.count % 4 == 0 {
            for _ in 0..<2 where characters.last == 0x3D { characters.removeLast() }
        }
        let values = Self.values
        guard characters.count % 4 != 1, characters.allSatisfy({ values[$0] != Values.none }) else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(characters.count * 3 / 4)
        characters.withUnsafeBufferPointer { append($0, to: &bytes) }
        return bytes
    }

    /// Adds what characters of either alphabet stand for. All must be such; bits left over behind the last byte are ignored.
    public static func append(_ characters: UnsafeBufferPointer<UInt8>, to bytes: inout [UInt8]) {
        let values = Self.values
        func value(_ index: Int) -> UInt32 { UInt32(values[characters[index]]) }
        var index = 0
        while index + 4 <= characters.count {
            let group = value(index) << 18 | value(index + 1) << 12 | value(index + 2) << 6 | value(index + 3)
            bytes.append(UInt8(truncatingIfNeeded: group >> 16))
            bytes.append(UInt8(truncatingIfNeeded: group >> 8))
            bytes.append(UInt8(truncatingIfNeeded: group))
            index += 4
        }
        let rest = characters.count - index
        guard rest > 1 else { return }
        let group = value(index) << 18 | value(index + 1) << 12 | (rest == 3 ? value(index + 2) << 6 : 0)
        bytes.append(UInt8(truncatingIfNeeded: group >> 16))
        if rest == 3 { bytes.append(UInt8(truncatingIfNeeded: group >> 8)) }
    }

    /// What each character stands for; ``Values/none`` for those of neither alphabet. The last two values are those by which the alphabets
    /// differ.
    public static let values = Values()

    /// A table whose memory is never given back.
    public struct Values: @unchecked Sendable {
        public static let none: UInt8 = 0xFF
        private let table: UnsafeMutablePointer<UInt8> = .allocate(capacity: 256)

        init() {
            for character in UInt8.min...UInt8.max {
                let value = Base64.value(of: character).map(UInt8.init) ?? Self.none
                (table + Int(character)).initialize(to: value)
            }
        }

        @inline(__always) public subscript(character: UInt8) -> UInt8 { table[Int(character)] }
    }

    @inline(__always) private static func value(of character: UInt8) -> UInt32? {
        switch character {
        case 0x41...0x5A: UInt32(character) - 0x41
        case 0x61...0x7A: UInt32(character) - 0x61 + 26
        case 0x30...0x39: UInt32(character) - 0x30 + 52
        case 0x2B, 0x2D: 62
        case 0x2F, 0x5F: 63
        default: nil
        }
    }
}
