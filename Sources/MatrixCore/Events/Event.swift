/// A persistent event of a room (PDU): its canonical bytes and the fields that the protocol decides by.
///
/// Immutable. Whatever has become an `Event` by ``init(receiving:version:)`` follows the event format of its
/// room version; hashes, signatures and authorisation are separate questions.
public final class Event: Sendable {
    public let version: RoomVersion
    public let eventID: EventID
    /// For a create event of room version 12 the room ID that follows from the event ID.
    public let roomID: RoomID
    public let sender: UserID
    public let type: String
    /// Nil for message events.
    public let stateKey: String?
    public let content: JSONView
    /// Milliseconds since 1970, as the sending server claims.
    public let originServerTS: Int64
    /// The sending server's claim; decides nothing but the order in state resolution version 1.
    public let depth: Int64
    public let prevEvents: [EventID]
    public let authEvents: [EventID]
    /// What an `m.room.redaction` redacts, wherever its room version says that; nil for other types and if it is no event
    /// ID.
    public let redacts: EventID?
    /// The whole event.
    public let root: JSONView

    /// The event as canonical JSON without `unsigned`: what is stored and sent to other servers.
    public var json: [UInt8] { root.document.bytes }

    public var isState: Bool { stateKey != nil }

    /// Where the event stands in the state of the room; nil for message events.
    public var stateMapKey: StateKey? { stateKey.map { StateKey(type: type, key: $0) } }

    /// The largest event: canonical JSON as servers exchange it, signatures included (Client-Server API, Size limits).
    public static let maxBytes = 65_536

    /// How many bytes an incoming event may have before it has been brought into canonical form: spelled with escapes it
    /// is up to six times as long, and `unsigned` is not counted.
    static let maxReceivedBytes = 8 * maxBytes

    /// An event from another server.
    ///
    /// Checks the event format and the size limits and computes the event ID; checks neither hashes nor signatures.
    /// `unsigned` is a claim of whoever handed the event on: it is dropped here, and not counted for the size,
    /// so that servers which were told different things about an event still agree whether it is one.
    ///
    /// - Throws: ``EventError``: the event must be dropped.
    public convenience init(receiving bytes: [UInt8], version: RoomVersion) throws(EventError) {
        let strict = version.rules.enforcesCanonicalJSON
        let limits = JSONLimits(maxBytes: Self.maxReceivedBytes, numbers: strict ? .canonicalOnly : .any)
        let received = try EventDecoder.parse(bytes, limits: limits)
        guard received.root.isObject else { throw .notAnObject }
        let canonical: [UInt8]
        do {
            canonical = try received.root.canonical(
                omitting: ["unsigned"], numbers: strict ? .integersOnly : .historical)
        } catch {
            throw .notCanonical(error)
        }
        guard canonical.count <= Self.maxBytes else { throw .tooLarge(bytes: canonical.count) }
        let document = canonical == bytes ? received : try EventDecoder.parse(canonical, limits: limits)
        try self.init(root: document.root, eventID: nil, version: version)
    }

    /// An event that was just made, in canonical form.
    ///
    /// - Throws: ``EventError`` if it is none, or too large.
    convenience init(canonical bytes: [UInt8], version: RoomVersion) throws(EventError) {
        guard bytes.count <= Self.maxBytes else { throw .tooLarge(bytes: bytes.count) }
        let document = try EventDecoder.parse(bytes, limits: .default)
        try self.init(root: document.root, eventID: nil, version: version)
    }

    /// An event from our own database, where it has been checked before.
    ///
    /// - Throws: ``EventError`` if the bytes are not an event at all, which is damage.
    public convenience init(stored bytes: [UInt8], eventID: EventID, version: RoomVersion) throws(EventError) {
        let document = try EventDecoder.parse(bytes, limits: .default)
        try self.init(root: document.root, eventID: eventID, version: version)
    }

    /// - Parameter eventID: nil if it has to be found out and the format has to be checked.
    init(root: JSONView, eventID known: EventID?, version: RoomVersion) throws(EventError) {
        let decoder = EventDecoder(root: root, rules: version.rules, isTrusted: known != nil)
        self.root = root
        self.version = version
        type = try decoder.boundedString("type")
        stateKey = try decoder.optionalBoundedString("state_key")
        sender = try decoder.sender()
        content = try decoder.object("content")
        originServerTS = try decoder.integer("origin_server_ts")
        depth = try decoder.depth()
        prevEvents = try decoder.references("prev_events", limit: 20)
        authEvents = try decoder.references("auth_events", limit: 10)
        if known == nil { try decoder.checkHashesAndSignatures() }
        if let known {
            eventID = known
        } else {
            eventID = try decoder.eventID(type: type)
        }
        roomID = try decoder.roomID(type: type, eventID: eventID)
        redacts = type.hasSameBytes(as: "m.room.redaction") ? decoder.redacts(content: content) : nil
    }
}
