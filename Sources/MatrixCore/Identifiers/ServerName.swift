/// The name of a homeserver: a host name or IP literal with an optional port (Appendices, Server Name).
///
/// Case-sensitive.
public struct ServerName: Identifier {
    private let value: ByteString

    public var string: String { value.string }

    public init?(_ string: String) {
        guard Self.isValid(string[...]) else { return nil }
        value = ByteString(string)
    }

    static func isValid(_ name: Substring) -> Bool {
        if name.utf8.withContiguousStorageIfAvailable(isPlain) == true { return true }
        guard let (host, port) = split(name), isValidHost(host) else { return false }
        guard let port else { return true }
        return (1...5).contains(port.utf8.count) && port.utf8.allSatisfy({ $0 &- 0x30 < 10 }) && UInt16(port) != nil
    }

    /// Whether it is a host name that is no address for a letter in it, as nearly all are.
    private static func isPlain(_ name: UnsafeBufferPointer<UInt8>) -> Bool {
        var hasLetter = false
        for byte in name {
            if (byte | 0x20) &- 0x61 < 26 {
                hasLetter = true
            } else if byte &- 0x30 >= 10, byte != 0x2E, byte != 0x2D {
                return false
            }
        }
        return hasLetter && name.count <= 255
    }

    public init(unchecked string: String) { value = ByteString(string) }

    /// The name without its port; IPv6 literals keep their brackets.
    public var host: String { Self.split(string[...]).map { String($0.host) } ?? string }

    public var port: UInt16? { Self.split(string[...])?.port.flatMap { UInt16($0) } }

    /// Whether the host is an IPv4 or IPv6 address.
    public var isIPLiteral: Bool {
        let host = host
        return host.utf8.first == 0x5B || IPLiteral.isIPv4(host[...])
    }

    private static func split(_ string: Substring) -> (host: Substring, port: Substring?)? {
        let utf8 = string.utf8
        let hostEnd: String.Index
        if utf8.first == 0x5B {
            guard let bracket = utf8.firstIndex(of: 0x5D) else { return nil }
            hostEnd = utf8.index(after: bracket)
        } else {
            hostEnd = utf8.firstIndex(of: 0x3A) ?? utf8.endIndex
        }
        guard hostEnd < utf8.endIndex else { return (string[..<hostEnd], nil) }
        guard utf8[hostEnd] == 0x3A else { return nil }
        return (string[..<hostEnd], string[utf8.index(after: hostEnd)...])
    }

    private static func isValidHost(_ host: Substring) -> Bool {
        let utf8 = host.utf8
        if utf8.first == 0x5B { return IPLiteral.isIPv6(Substring(utf8.dropFirst().dropLast())) }
        guard (1...255).contains(utf8.count) else { return false }
        var digitsAndDots = true
        for byte in utf8 {
            switch byte {
            case 0x30...0x39, 0x2E: break
            case 0x41...0x5A, 0x61...0x7A, 0x2D: digitsAndDots = false
            default: return false
            }
        }
        // Four numbers are an address literal and nothing else: "1.2.3.999" names no host.
        guard digitsAndDots, utf8.split(separator: 0x2E, omittingEmptySubsequences: false).count == 4 else {
            return true
        }
        return IPLiteral.isIPv4(host)
    }
}

/// Address literals inside server names.
enum IPLiteral {
    /// Four decimal numbers from 0 to 255 with one to three digits each.
    static func isIPv4(_ text: Substring) -> Bool {
        let parts = text.utf8.split(separator: 0x2E, omittingEmptySubsequences: false)
        return parts.count == 4
            && parts.allSatisfy { part in
                (1...3).contains(part.count) && part.allSatisfy { $0 &- 0x30 < 10 } && UInt8(Substring(part)) != nil
            }
    }

    /// RFC 3513 §2.2: eight groups of one to four hexadecimal digits; one `::` stands for any number of zero groups; the last two
    /// groups may be an IPv4 address.
    static func isIPv6(_ text: Substring) -> Bool {
        guard (2...45).contains(text.utf8.count) else { return false }
        let groups = text.utf8.split(separator: 0x3A, omittingEmptySubsequences: false)
        var count = 0
        var compressions = 0
        for (position, group) in groups.enumerated() {
            if group.isEmpty {
                // An empty group is the inside of "::", or its outer side at the beginning or end.
                let isEdge = position == 0 || position == groups.count - 1
                if isEdge {
                    let neighbour = position == 0 ? 1 : groups.count - 2
                    guard groups.count > 2, groups[neighbour].isEmpty else { return false }
                } else {
                    compressions += 1
                }
            } else if group.contains(0x2E) {
                guard position == groups.count - 1, isIPv4(Substring(group)) else { return false }
                count += 2
            } else {
                guard group.count <= 4, group.allSatisfy(isHexDigit) else { return false }
                count += 1
            }
        }
        return compressions == 0 ? count == 8 : compressions == 1 && count < 8
    }

    private static func isHexDigit(_ byte: UInt8) -> Bool {
        byte &- 0x30 < 10 || (byte | 0x20) &- 0x61 < 6
    }
}
