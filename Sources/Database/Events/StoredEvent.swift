import MatrixCore

/// An event as the database keeps it: its bytes, and beside them what queries and answers need.
public final class StoredEvent: Sendable {
    /// What is known of an event's standing.
    public struct Flags: OptionSet, Sendable {
        public let rawValue: Int64
        public init(rawValue: Int64) { self.rawValue = rawValue }

        /// The authorisation rules refused it by the events it names; it takes part in nothing.
        public static let rejected = Flags(rawValue: 1)
        /// Allowed where it was sent, but not by the current state: kept from clients and from new events.
        public static let softFailed = Flags(rawValue: 2)
        /// Known without the room's history around it.
        public static let outlier = Flags(rawValue: 4)
        /// Other events refer to it, or did.
        public static let hasRelations = Flags(rawValue: 8)
        /// It is, or was, to be delivered to everybody for a time.
        public static let sticky = Flags(rawValue: 16)

        /// This server tells the other servers of the room about it: its own events, and those it let in.
        public static let outgoing = Flags(rawValue: 32)

        /// What keeps an event from being shown.
        public static let hidden: Flags = [.rejected, .softFailed, .outlier]
    }

    public let nid: EventNID
    public let eventID: EventID
    public let room: RoomNID
    /// The commit position; nil for outliers, rejected and soft-failed events, negative for what was fetched from before.
    public let position: Int64?
    /// The place in the room's order, before ``position`` decides.
    public let orderDepth: Int64
    public let type: EventTypeNID
    public let sender: UserNID
    public let stateKey: StateKeyNID?
    /// The room's state before the event; nil where it is not known.
    public let stateBefore: StateNID?
    /// The room's state after the event; nil where it is not known. Kept for state events: messages change nothing.
    public let stateAfter: StateNID?
    public let flags: Flags
    public let originServerTS: Int64
    /// The redaction that took effect on it.
    public let redactedBy: EventNID?
    /// The state event whose place it took.
    public let replaces: EventNID?
    /// Where it stands in the chain cover of the auth graph; state events only.
    public let chain: ChainPlace?
    public let previous: [EventNID]
    public let auth: [EventNID]
    /// The device that sent it and its transaction ID, as `device ID`, a NUL, `transaction ID`.
    public let transactionKey: String?
    /// The parts of `json` that clients don't get.
    public let cuts: [Range<Int>]
    public let json: [UInt8]
    /// Whether it is a notification by the rules that everybody starts with.
    public let notifying: NotifyingMark?

    public init(
        nid: EventNID, eventID: EventID, room: RoomNID, position: Int64?, orderDepth: Int64, type: EventTypeNID,
        sender: UserNID, stateKey: StateKeyNID?, stateBefore: StateNID?, flags: Flags, originServerTS: Int64,
        redactedBy: EventNID?, replaces: EventNID?, chain: ChainPlace?, previous: [EventNID], auth: [EventNID],
        transactionKey: String?,
        cuts: [Range<Int>],
        json: [UInt8], notifying: NotifyingMark? = nil,
        stateAfter: StateNID? = nil
    ) {
        self.nid = nid
        self.eventID = eventID
        self.room = room
        self.position = position
        self.orderDepth = orderDepth
        self.type = type
        self.sender = sender
        self.stateKey = stateKey
        self.stateBefore = stateBefore
        self.flags = flags
        self.originServerTS = originServerTS
        self.redactedBy = redactedBy
        self.replaces = replaces
        self.chain = chain
        self.previous = previous
        self.auth = auth
        self.transactionKey = transactionKey
        self.cuts = cuts
        self.json = json
        self.notifying = notifying
        self.stateAfter = stateAfter
    }

    /// Whether what authorises it was there to judge it by. It was not for an invitation, a knock, or the end of one that came while
    /// this server was outside of the room: such an event authorises nothing and belongs to no state until it is judged.
    public var isJudged: Bool { stateKey == nil || chain != nil }

    /// The columns that ``init(row:)`` reads, in its order.
    static let columns = """
        event_nid, event_id, room_nid, position, order_depth, type_nid, sender_nid, state_key_nid, state_before, flags, \
        origin_server_ts, redacted_by, replaces, chain_nid, chain_place, previous, auth, transaction_key, cuts, json, notifying, \
        state_after
        """

    static let columnCount = 22

    convenience init(row: any Row) throws {
        self.init(
            nid: EventNID(row.integer(0)), eventID: PackedEventID.unpack(row.blob(1)), room: RoomNID(row.integer(2)),
            position: row.optionalInteger(3), orderDepth: row.integer(4), type: EventTypeNID(row.integer(5)),
            sender: UserNID(row.integer(6)), stateKey: row.optionalInteger(7).map { StateKeyNID($0) },
            stateBefore: row.optionalInteger(8).map { StateNID($0) }, flags: Flags(rawValue: row.integer(9)),
            originServerTS: row.integer(10), redactedBy: row.optionalInteger(11).map { EventNID($0) },
            replaces: row.optionalInteger(12).map { EventNID($0) },
            chain: row.optionalInteger(13).map { ChainPlace(chain: $0, place: row.integer(14)) },
            previous: try PackedNumbers.unpack(row.blob(15)).map { EventNID($0) },
            auth: try PackedNumbers.unpack(row.blob(16)).map { EventNID($0) }, transactionKey: row.optionalText(17),
            cuts: try Self.unpackCuts(row.blob(18)), json: try PackedEvent.unpack(row.blob(19)),
            notifying: row.optionalInteger(20).map { NotifyingMark(rawValue: $0) },
            stateAfter: row.optionalInteger(21).map { StateNID($0) })
    }

    /// Cuts are packed as the bytes kept before each and the bytes of each.
    static func packCuts(_ cuts: [Range<Int>]) -> [UInt8] {
        var bytes: [UInt8] = []
        var end = 0
        for cut in cuts {
            Varint.append(UInt64(cut.lowerBound - end), to: &bytes)
            Varint.append(UInt64(cut.count), to: &bytes)
            end = cut.upperBound
        }
        return bytes
    }

    static func unpackCuts(_ bytes: [UInt8]) throws(DatabaseError) -> [Range<Int>] {
        var cuts: [Range<Int>] = []
        var index = 0
        var end = 0
        while index < bytes.count {
            guard let kept = Varint.read(bytes, &index), let cut = Varint.read(bytes, &index), kept < 1 << 20,
                cut < 1 << 20
            else { throw .corrupt("the cuts of an event are unreadable") }
            let start = end + Int(kept)
            end = start + Int(cut)
            cuts.append(start..<end)
        }
        return cuts
    }

    /// The bytes under which an event is found: the first sixteen of the SHA-256 of its ID. IDs of the first room versions
    /// are chosen by their senders, hence a hash; half of it is enough that nobody can make two that collide.
    public static func key(of eventID: EventID) -> [UInt8] {
        Array(Hashing.sha256(Array(eventID.string.utf8)).prefix(16))
    }

    /// The ID that a device gave the event, if it has sent it.
    public func transactionID(of device: String) -> String? {
        guard let transactionKey, let end = transactionKey.firstIndex(ofByte: 0),
            transactionKey[..<end].utf8.elementsEqual(device.utf8)
        else { return nil }
        return String(transactionKey[transactionKey.utf8.index(after: end)...])
    }

    /// The event with further signatures.
    public func with(json: [UInt8], cuts: [Range<Int>]) -> StoredEvent { copy(json: json, cuts: cuts) }

    /// The event as it is once it has got a position.
    public func at(position: Int64) -> StoredEvent { copy(position: position) }

    /// The same event once a redaction has taken effect on it.
    public func redacted(by redaction: EventNID) -> StoredEvent {
        copy(redactedBy: redaction, notifying: .some(nil))
    }

    /// The same event with more flags.
    public func flagged(_ flags: Flags) -> StoredEvent { copy(flags: self.flags.union(flags)) }

    /// The same event with other states around it.
    public func restated(
        before: StateNID, after: StateNID?, replaces: EventNID?, flags: Flags
    ) -> StoredEvent {
        copy(stateBefore: before, stateAfter: .some(after), replaces: .some(replaces), flags: flags)
    }

    /// - Parameters: what is another than here; of what may be missing, nil in the outer optional leaves it as it is.
    private func copy(
        position: Int64? = nil, stateBefore: StateNID? = nil, stateAfter: StateNID?? = nil, replaces: EventNID?? = nil,
        flags: Flags? = nil, json: [UInt8]? = nil, cuts: [Range<Int>]? = nil, redactedBy: EventNID? = nil,
        notifying: NotifyingMark?? = nil
    ) -> StoredEvent {
        StoredEvent(
            nid: nid, eventID: eventID, room: room, position: position ?? self.position, orderDepth: orderDepth,
            type: type, sender: sender, stateKey: stateKey, stateBefore: stateBefore ?? self.stateBefore,
            flags: flags ?? self.flags, originServerTS: originServerTS, redactedBy: redactedBy ?? self.redactedBy,
            replaces: replaces ?? self.replaces, chain: chain, previous: previous, auth: auth,
            transactionKey: transactionKey, cuts: cuts ?? self.cuts, json: json ?? self.json,
            notifying: notifying ?? self.notifying, stateAfter: stateAfter ?? self.stateAfter)
    }

    /// Bytes the event takes in a cache, about.
    var size: Int { json.count + 400 }
}
