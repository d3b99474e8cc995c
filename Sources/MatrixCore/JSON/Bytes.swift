/// Comparing and scanning raw UTF-8.
///
/// Swift's `String ==` compares by canonical equivalence: "é" equals "e" followed by a combining accent. For the protocol
/// these are different identifiers and different keys, so everything here compares bytes.
enum Bytes {
    @inline(__always)
    static func isEqual(_ a: UnsafePointer<UInt8>, _ b: UnsafePointer<UInt8>, _ count: Int) -> Bool {
        var index = 0
        while index &+ 8 <= count {
            let x = UnsafeRawPointer(a + index).loadUnaligned(as: UInt64.self)
            let y = UnsafeRawPointer(b + index).loadUnaligned(as: UInt64.self)
            if x != y { return false }
            index &+= 8
        }
        while index < count {
            if a[index] != b[index] { return false }
            index &+= 1
        }
        return true
    }

    /// Byte order. UTF-8 is made so that this is also the order of code points (Appendices, Canonical JSON).
    @inline(__always)
    static func isLess(
        _ a: UnsafePointer<UInt8>, _ aCount: Int, _ b: UnsafePointer<UInt8>, _ bCount: Int
    ) -> Bool {
        let common = min(aCount, bCount)
        var index = 0
        while index &+ 8 <= common {
            let x = UnsafeRawPointer(a + index).loadUnaligned(as: UInt64.self)
            let y = UnsafeRawPointer(b + index).loadUnaligned(as: UInt64.self)
            if x != y { return UInt64(bigEndian: x) < UInt64(bigEndian: y) }
            index &+= 8
        }
        while index < common {
            if a[index] != b[index] { return a[index] < b[index] }
            index &+= 1
        }
        return aCount < bCount
    }

    /// The high bit of each byte that ends a plain run inside a JSON string: a quote, a backslash, a control character
    /// or a byte above 0x7F. Bits above the lowest one set may be wrong, the lowest is exact.
    @inline(__always) static func specialMask(_ word: UInt64) -> UInt64 {
        escapedMask(word) | word & 0x8080_8080_8080_8080
    }

    /// The same without the bytes above 0x7F: what cannot stand in a string as it is.
    @inline(__always) static func escapedMask(_ word: UInt64) -> UInt64 {
        let ones: UInt64 = 0x0101_0101_0101_0101
        let quote = word ^ (0x22 &* ones)
        let backslash = word ^ (0x5C &* ones)
        return
            ((quote &- ones) & ~quote | (backslash &- ones) & ~backslash | (word &- (0x20 &* ones)) & ~word)
            & (0x80 &* ones)
    }

    /// The length of the UTF-8 sequence that starts with a byte above 0x7F, or 0 if it is not well-formed
    /// (overlong, surrogate, beyond U+10FFFF, cut off).
    @inline(__always) static func utf8SequenceLength(_ p: UnsafePointer<UInt8>, _ available: Int) -> Int {
        let first = p[0]
        if first < 0xC2 { return 0 }
        if first < 0xE0 {
            return available >= 2 && p[1] & 0xC0 == 0x80 ? 2 : 0
        }
        if first < 0xF0 {
            guard available >= 3, p[1] & 0xC0 == 0x80, p[2] & 0xC0 == 0x80 else { return 0 }
            if first == 0xE0, p[1] < 0xA0 { return 0 }
            if first == 0xED, p[1] >= 0xA0 { return 0 }
            return 3
        }
        guard first < 0xF5, available >= 4, p[1] & 0xC0 == 0x80, p[2] & 0xC0 == 0x80, p[3] & 0xC0 == 0x80 else {
            return 0
        }
        if first == 0xF0, p[1] < 0x90 { return 0 }
        if first == 0xF4, p[1] >= 0x90 { return 0 }
        return 4
    }
}

extension String {
    /// Whether both consist of the same bytes; `==` would be canonical equivalence.
    @inline(__always) public func hasSameBytes(as other: String) -> Bool {
        guard utf8.count == other.utf8.count else { return false }
        return withBytes { a in other.withBytes { b in isSame(a, b) } }
    }

    /// Byte order.
    func precedesInBytes(_ other: String) -> Bool {
        withBytes { a in
            other.withBytes { b in
                guard let bBase = b.baseAddress, b.count > 0 else { return false }
                guard let aBase = a.baseAddress, a.count > 0 else { return true }
                return Bytes.isLess(aBase, a.count, bBase, b.count)
            }
        }
    }

    /// Where a byte stands first. Going through `utf8` asks for each byte how the string is stored.
    public func firstIndex(ofByte byte: UInt8) -> Index? {
        withBytes { $0.firstIndex(of: byte) }.map { utf8.index(utf8.startIndex, offsetBy: $0) }
    }

    /// Feeds the bytes and their number.
    func hashBytes(into hasher: inout Hasher) {
        withBytes { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
        hasher.combine(UInt8(0xFF))
    }

    @inline(__always) func withBytes<R>(_ body: (UnsafeBufferPointer<UInt8>) -> R) -> R {
        if let result = utf8.withContiguousStorageIfAvailable(body) { return result }
        var copy = self
        return copy.withUTF8(body)
    }

    @inline(__always) private func isSame(_ a: UnsafeBufferPointer<UInt8>, _ b: UnsafeBufferPointer<UInt8>) -> Bool {
        guard let aBase = a.baseAddress, let bBase = b.baseAddress else { return a.count == b.count }
        return Bytes.isEqual(aBase, bBase, a.count)
    }
}

/// A string that is compared, ordered and hashed by its bytes: the key type for sets and dictionaries of protocol strings.
public struct ByteString: Sendable, Hashable, Comparable, CustomStringConvertible, ExpressibleByStringLiteral {
    public let string: String

    public init(_ string: String) { self.string = string }
    public init(stringLiteral value: String) { string = value }

    public static func == (a: Self, b: Self) -> Bool { a.string.hasSameBytes(as: b.string) }
    public static func < (a: Self, b: Self) -> Bool { a.string.precedesInBytes(b.string) }
    public func hash(into hasher: inout Hasher) { string.hashBytes(into: &hasher) }
    public var description: String { string }
}
