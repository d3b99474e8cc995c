/// A parsed JSON text: the untouched bytes and a tape of what stands where.
///
/// Nothing is decoded before it is asked for; a value can be served again as the bytes it came in.
public final class JSONDocument: Sendable {
    /// The text as it was given.
    public let bytes: [UInt8]
    let tape: [UInt64]
    /// False if an object of the text may have a key twice, so that look-ups have to go through to the last member.
    let keysAreUnique: Bool

    /// - Throws: ``JSONError`` if `bytes` are not exactly one JSON value within `limits`.
    public init(parsing bytes: [UInt8], limits: JSONLimits = .default) throws(JSONError) {
        tape = try JSONParser.parse(bytes, limits: limits)
        self.bytes = bytes
        keysAreUnique = limits.duplicateKeys == .reject
    }

    public var root: JSONView { JSONView(document: self, index: 0) }
}
