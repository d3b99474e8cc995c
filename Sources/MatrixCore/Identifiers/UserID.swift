/// A user: `@localpart:server` (Appendices, User Identifiers).
///
/// Accepts the historical grammar, which servers must: a localpart of any characters but `:` and NUL, the empty one
/// included. New accounts are held to ``isValidLocalpart(_:)``.
public struct UserID: Identifier {
    private let value: ByteString

    public var string: String { value.string }

    public init?(_ string: String) {
        guard let (localpart, domain) = IdentifierGrammar.split(string, sigil: 0x40),
            !localpart.utf8.contains(0), ServerName.isValid(domain)
        else { return nil }
        value = ByteString(string)
    }

    public init(unchecked string: String) { value = ByteString(string) }

    /// Nil if `localpart` is not one that new users may have or the whole exceeds 255 bytes.
    public init?(localpart: String, server: ServerName) {
        guard Self.isValidLocalpart(localpart) else { return nil }
        self.init("@\(localpart):\(server.string)")
    }

    public var localpart: String { IdentifierGrammar.localpart(string) }
    public var server: ServerName { ServerName(unchecked: IdentifierGrammar.domain(string) ?? "") }

    /// The grammar of users that are made today: one or more of `a-z 0-9 . _ = - / +`.
    public static func isValidLocalpart(_ localpart: String) -> Bool {
        !localpart.isEmpty
            && localpart.utf8.allSatisfy { byte in
                switch byte {
                case 0x61...0x7A, 0x30...0x39, 0x2E, 0x5F, 0x3D, 0x2D, 0x2F, 0x2B: true
                default: false
                }
            }
    }

    /// False for localparts that are empty or go beyond U+0021 to U+007E: such users are accepted in events only and
    /// not shown to clients elsewhere (Appendices, Historical User IDs).
    public var isCompliant: Bool {
        let localpart = localpart.utf8
        return !localpart.isEmpty && localpart.allSatisfy { (0x21...0x7E).contains($0) }
    }
}
