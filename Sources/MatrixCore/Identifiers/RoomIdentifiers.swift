/// A room: `!opaque:server`, or from room version 12 on `!` and the hash of the create event (Appendices, Room IDs).
public struct RoomID: Identifier {
    private let value: ByteString

    public var string: String { value.string }

    public init?(_ string: String) {
        if let (localpart, domain) = IdentifierGrammar.split(string, sigil: 0x21) {
            guard !localpart.isEmpty, !localpart.utf8.contains(0), ServerName.isValid(domain) else { return nil }
        } else {
            guard string.utf8.first == 0x21, EventID.isReferenceHash(string.utf8.dropFirst(), urlSafe: true) else {
                return nil
            }
        }
        value = ByteString(string)
    }

    public init(unchecked string: String) { value = ByteString(string) }

    /// The ID of the room that `create` begins, in room versions that derive one from the other.
    public init(create: EventID) { value = ByteString("!" + create.string.dropFirst()) }

    /// The server that made the ID up; nil if the ID is a hash.
    public var server: ServerName? { IdentifierGrammar.domain(string).map(ServerName.init(unchecked:)) }

    /// The create event whose hash this ID is; nil if the ID has a domain.
    public var createEventID: EventID? {
        string.utf8.contains(0x3A) ? nil : EventID(unchecked: "$" + string.dropFirst())
    }
}

/// A name for a room: `#localpart:server` (Appendices, Room Aliases).
public struct RoomAlias: Identifier {
    private let value: ByteString

    public var string: String { value.string }

    public init?(_ string: String) {
        guard let (localpart, domain) = IdentifierGrammar.split(string, sigil: 0x23),
            !localpart.isEmpty, !localpart.utf8.contains(0), ServerName.isValid(domain)
        else { return nil }
        value = ByteString(string)
    }

    public init(unchecked string: String) { value = ByteString(string) }

    public var localpart: String { IdentifierGrammar.localpart(string) }
    public var server: ServerName { ServerName(unchecked: IdentifierGrammar.domain(string) ?? "") }
}

/// An event: `$opaque:server` in room versions 1 and 2, `$` and the reference hash later (Appendices, Event IDs).
public struct EventID: Identifier {
    private let value: ByteString

    public var string: String { value.string }

    public init?(_ string: String) {
        let utf8 = string.utf8
        guard utf8.first == 0x24, (2...IdentifierGrammar.maxLength).contains(utf8.count), !utf8.contains(0) else {
            return nil
        }
        if let (localpart, domain) = IdentifierGrammar.split(string, sigil: 0x24) {
            guard !localpart.isEmpty, ServerName.isValid(domain) else { return nil }
        }
        value = ByteString(string)
    }

    public init(unchecked string: String) { value = ByteString(string) }

    /// The domain of an ID of room versions 1 and 2; nil for a hash.
    public var server: ServerName? { IdentifierGrammar.domain(string).map(ServerName.init(unchecked:)) }

    /// Whether `text` has the form of a SHA-256 hash in unpadded Base64.
    static func isReferenceHash(_ text: Substring.UTF8View, urlSafe: Bool) -> Bool {
        text.count == 43
            && text.allSatisfy { byte in
                switch byte {
                case 0x41...0x5A, 0x61...0x7A, 0x30...0x39: true
                case 0x2D, 0x5F: urlSafe
                case 0x2B, 0x2F: !urlSafe
                default: false
                }
            }
    }
}

/// A device of a user; chosen by clients, opaque.
public struct DeviceID: Identifier {
    private let value: ByteString

    public var string: String { value.string }

    public init?(_ string: String) {
        guard (1...IdentifierGrammar.maxLength).contains(string.utf8.count),
            string.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7F })
        else { return nil }
        value = ByteString(string)
    }

    public init(unchecked string: String) { value = ByteString(string) }
}

/// What a piece of room state is found by: event type and state key, compared by their bytes.
public struct StateKey: Sendable, Hashable, Comparable, CustomStringConvertible {
    private let typeBytes: ByteString
    private let keyBytes: ByteString

    public var type: String { typeBytes.string }
    public var key: String { keyBytes.string }

    public init(type: String, key: String) {
        typeBytes = ByteString(type)
        keyBytes = ByteString(key)
    }

    public init(_ type: String, _ key: String = "") { self.init(type: type, key: key) }

    public static func < (a: Self, b: Self) -> Bool {
        a.typeBytes == b.typeBytes ? a.keyBytes < b.keyBytes : a.typeBytes < b.typeBytes
    }

    public var description: String { "(\(type), \(key))" }
}
