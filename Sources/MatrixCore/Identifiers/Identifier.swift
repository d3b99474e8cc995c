/// What all identifiers of the protocol have in common (Appendices, Common Identifier Format).
///
/// They are opaque strings once they have been checked; they are compared, ordered and hashed by their bytes.
public protocol Identifier: Sendable, Hashable, Comparable, CustomStringConvertible {
    /// Nil if `string` does not follow the grammar of this identifier.
    init?(_ string: String)
    /// For strings from our own database that were checked when they came in.
    init(unchecked string: String)
    var string: String { get }
}

extension Identifier {
    public static func < (a: Self, b: Self) -> Bool { a.string.precedesInBytes(b.string) }
    public var description: String { string }
}

/// Limits and the split that identifiers share.
enum IdentifierGrammar {
    /// The longest identifier in bytes, sigil and domain included.
    static let maxLength = 255

    /// Localpart and domain of `sigil localpart ":" domain`; a localpart has no colon, so the first one splits.
    static func split(_ string: String, sigil: UInt8) -> (localpart: Substring, domain: Substring)? {
        let utf8 = string.utf8
        guard utf8.count <= maxLength, utf8.first == sigil, let colon = string.firstIndex(ofByte: 0x3A) else {
            return nil
        }
        return (string[utf8.index(after: utf8.startIndex)..<colon], string[utf8.index(after: colon)...])
    }

    static func domain(_ string: String) -> String? {
        guard let colon = string.firstIndex(ofByte: 0x3A) else { return nil }
        return String(string[string.utf8.index(after: colon)...])
    }

    static func localpart(_ string: String) -> String {
        let end = string.firstIndex(ofByte: 0x3A) ?? string.endIndex
        return String(Substring(string[..<end].utf8.dropFirst()))
    }
}
