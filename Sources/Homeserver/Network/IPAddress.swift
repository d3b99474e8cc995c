/// An IPv4 or IPv6 address as 16 bytes; IPv4 is held in its IPv6-mapped form, so that the two spellings are one address.
public struct IPAddress: Sendable, Hashable {
    /// The upper and lower half of the address, in host byte order.
    public let high: UInt64
    public let low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// An IPv4 address from its four bytes as one number, the first byte topmost.
    public init(v4 number: UInt32) {
        self.init(high: 0, low: 0xFFFF_0000_0000 | UInt64(number))
    }

    /// Whether this is an IPv4 address, in its own or in its mapped form.
    public var isV4: Bool { high == 0 && low >> 32 == 0xFFFF }

    /// Whether this is an address of this machine alone, `127.0.0.0/8` or `::1`.
    public var isLoopback: Bool { isV4 ? low >> 24 & 0xFF == 127 : high == 0 && low == 1 }

    /// Parses dotted IPv4 or any spelling of IPv6 without a zone; nil for everything else.
    public init?(_ text: some StringProtocol) {
        let bytes = Array(text.utf8)
        if bytes.contains(UInt8(ascii: ":")) {
            guard let groups = Self.groups(of: bytes) else { return nil }
            let number: (ArraySlice<UInt16>) -> UInt64 = { $0.reduce(0) { $0 << 16 | UInt64($1) } }
            self.init(high: number(groups[..<4]), low: number(groups[4...]))
        } else {
            guard let number = Self.dotted(bytes[...]) else { return nil }
            self.init(v4: number)
        }
    }

    /// Four decimal numbers without leading zeros: `010` means 8 to some programs and 10 to others.
    private static func dotted(_ bytes: ArraySlice<UInt8>) -> UInt32? {
        let parts = bytes.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var result: UInt32 = 0
        for part in parts {
            guard (1...3).contains(part.count), part.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
            guard part.count == 1 || part.first != 0x30 else { return nil }
            let number = part.reduce(0 as UInt32) { $0 * 10 + UInt32($1 - 0x30) }
            guard number <= 255 else { return nil }
            result = result << 8 | number
        }
        return result
    }

    /// The eight groups of an IPv6 address, with `::` filled in.
    private static func groups(of bytes: [UInt8]) -> [UInt16]? {
        var before: [UInt16] = []
        var after: [UInt16]?
        var rest = bytes[...]
        func append(_ group: UInt16) {
            if after == nil { before.append(group) } else { after?.append(group) }
        }
        if rest.starts(with: "::".utf8) {
            after = []
            rest = rest.dropFirst(2)
        }
        while !rest.isEmpty {
            let end = rest.firstIndex(of: UInt8(ascii: ":")) ?? rest.endIndex
            let part = rest[rest.startIndex..<end]
            if part.contains(UInt8(ascii: ".")) {
                guard end == rest.endIndex, let v4 = dotted(part) else { return nil }
                append(UInt16(v4 >> 16))
                append(UInt16(truncatingIfNeeded: v4))
                break
            }
            guard (1...4).contains(part.count), let text = String(validating: part, as: UTF8.self),
                part.allSatisfy(Self.isHex), let group = UInt16(text, radix: 16)
            else { return nil }
            append(group)
            if end == rest.endIndex { break }
            rest = rest[(end + 1)...]
            if rest.first == UInt8(ascii: ":") {
                guard after == nil else { return nil }
                after = []
                rest = rest.dropFirst()
            } else if rest.isEmpty {
                return nil
            }
        }
        guard let after else { return before.count == 8 ? before : nil }
        guard before.count + after.count < 8 else { return nil }
        return before + Array(repeating: 0, count: 8 - before.count - after.count) + after
    }

    private static func isHex(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x41...0x46).contains(byte & 0xDF)
    }
}

extension IPAddress: CustomStringConvertible {
    /// Dotted for IPv4, the short lower-case form of RFC 5952 for IPv6.
    public var description: String {
        if isV4 {
            return [24, 16, 8, 0].map { String(low >> UInt64($0) & 0xFF) }.joined(separator: ".")
        }
        let groups = [high, low].flatMap { half in [48, 32, 16, 0].map { UInt16(truncatingIfNeeded: half >> $0) } }
        var longest = 0..<0
        var start = 0
        for (index, group) in groups.enumerated() {
            if group != 0 {
                start = index + 1
            } else if index + 1 - start > max(longest.count, 1) {
                longest = start..<(index + 1)
            }
        }
        let hex: (ArraySlice<UInt16>) -> String = { $0.map { String($0, radix: 16) }.joined(separator: ":") }
        guard !longest.isEmpty else { return hex(groups[...]) }
        return hex(groups[..<longest.lowerBound]) + "::" + hex(groups[longest.upperBound...])
    }
}

/// A block of addresses in CIDR notation, such as `10.0.0.0/8` or `fd00::/8`; a single address is a block of one.
public struct AddressRange: Sendable, Hashable {
    public let base: IPAddress
    /// How many leading bits, of 128, all addresses of the block share.
    public let prefix: Int

    public init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), let base = IPAddress(parts[0]) else { return nil }
        let width = parts[0].utf8.contains(UInt8(ascii: ":")) ? 128 : 32
        var length = width
        if parts.count == 2 {
            guard let number = Int(parts[1]), (0...width).contains(number), parts[1].utf8.first != UInt8(ascii: "+")
            else { return nil }
            length = number
        }
        self.base = base
        prefix = 128 - width + length
    }

    public func contains(_ address: IPAddress) -> Bool {
        let mask: (Int) -> UInt64 = { $0 <= 0 ? 0 : $0 >= 64 ? .max : ~(.max >> UInt64($0)) }
        return (base.high ^ address.high) & mask(prefix) == 0 && (base.low ^ address.low) & mask(prefix - 64) == 0
    }
}

extension AddressRange: CustomStringConvertible {
    public var description: String { base.isV4 && prefix >= 96 ? "\(base)/\(prefix - 96)" : "\(base)/\(prefix)" }
}
