/// What a JSON text may look like before the parser gives up on it.
///
/// Every text that a stranger sends is parsed under limits; the parser itself is iterative, so that depth costs memory
/// in proportion to `maxDepth` and never the stack.
public struct JSONLimits: Sendable, Hashable {
    /// What happens when one object has the same key twice.
    public enum DuplicateKeys: Sendable, Hashable {
        /// The text is refused. Two servers that pick different members of such an object would disagree about its
        /// meaning and about its hash, so events are always parsed this way.
        case reject
        /// The last member counts, as for most parsers. Meant for envelopes that carry other servers' events: one
        /// malformed event must not make a whole transaction unreadable, it is refused when it is looked at itself.
        case lastWins
    }

    /// Which numbers are accepted.
    public enum Numbers: Sendable, Hashable {
        /// All of the JSON grammar.
        case any
        /// Only integers within ±(2^53−1) without fraction, exponent or negative zero (Appendices, Canonical JSON).
        case canonicalOnly
    }

    /// The longest text in bytes; at most 1 GiB − 1, what an offset on the tape can hold.
    public var maxBytes: Int
    /// How many arrays and objects may be open at once.
    public var maxDepth: Int
    public var duplicateKeys: DuplicateKeys
    public var numbers: Numbers

    public init(
        maxBytes: Int = Self.largestText, maxDepth: Int = 100, duplicateKeys: DuplicateKeys = .reject,
        numbers: Numbers = .any
    ) {
        self.maxBytes = min(max(maxBytes, 0), Self.largestText)
        self.maxDepth = max(maxDepth, 0)
        self.duplicateKeys = duplicateKeys
        self.numbers = numbers
    }

    /// What an offset on the tape can hold.
    public static let largestText = 1 << 30 - 1

    /// 100 levels, no duplicate keys: request bodies of clients and everything without a reason for other limits.
    ///
    /// Duplicate keys in a client's body are refused rather than resolved: no client library writes them, and a proxy
    /// in front of us that picks another member than we do would check one request and let another pass.
    public static let `default` = JSONLimits()

    /// For what this server has put together itself, or stored within something else, of parts that were within the default limits: a
    /// part stands some levels deeper there, and what was accepted once can always be read again.
    public static let own = JSONLimits(maxDepth: 200)

    /// For envelopes from other servers (transactions, `send_join` answers, backfill): deeper than any event may be
    /// and lenient about duplicate keys, so that one bad event inside is refused on its own.
    public static let envelope = JSONLimits(maxDepth: 1_000, duplicateKeys: .lastWins)
}

/// Why a text is not acceptable JSON, and where.
public struct JSONError: Error, Sendable, Hashable, CustomStringConvertible {
    public enum Reason: String, Sendable, Hashable {
        case tooLong = "the text is longer than allowed"
        case tooDeep = "arrays and objects are nested deeper than allowed"
        case unexpectedEnd = "the text ends in the middle of a value"
        case unexpectedByte = "a byte that cannot stand here"
        case trailingBytes = "bytes follow the value"
        case controlCharacter = "a control character inside a string is not escaped"
        case invalidEscape = "an unknown escape sequence"
        case loneSurrogate = "a surrogate escape without its partner"
        case invalidUTF8 = "bytes that are not UTF-8"
        case invalidNumber = "a number that the JSON grammar does not allow"
        case numberNotCanonical = "a number that is not an integer within ±(2^53−1)"
        case duplicateKey = "an object has the same key twice"
    }

    public let reason: Reason
    /// Byte offset into the text.
    public let offset: Int

    public init(_ reason: Reason, at offset: Int) {
        self.reason = reason
        self.offset = offset
    }

    public var description: String { "invalid JSON: \(reason.rawValue) (at byte \(offset))" }
}
