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
        func put(_ group: UInt32, _ count: UInt32) {
            for place in 0..<count {
                output[written] = characters[Int(group >> (18 - 6 * place) & 63)]
                written += 1
            }
        }
        while read + 3 <= input.count {
            put(UInt32(input[read]) << 16 | UInt32(input[read + 1]) << 8 | UInt32(input[read + 2]), 4)
            read += 3
        }
        switch input.count - read {
        case 2: put(UInt32(input[read]) << 16 | UInt32(input[read + 1]) << 8, 3)
        case 1: put(UInt32(input[read]) << 16, 2)
        default: break
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
        guard characters.count % 4 != 1 else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(characters.count * 3 / 4)
        var buffer: UInt32 = 0
        var bits = 0
        for character in characters {
            guard let value = value(of: character) else { return nil }
            buffer = buffer << 6 | value
            bits += 6
            if bits >= 8 {
                bits -= 8
                bytes.append(UInt8(truncatingIfNeeded: buffer >> UInt32(bits)))
            }
            buffer &= 1 << UInt32(bits) - 1
        }
        return bytes
    }

    /// What a character of either alphabet stands for.
    @inline(__always) public static func value(of character: UInt8) -> UInt32? {
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
