import MatrixCore

extension Write {
    private static let insertEvent = Statement(
        """
        INSERT INTO events (event_nid, event_key, event_id, room_nid, position, order_depth, type_nid, sender_nid,
            state_key_nid, state_before, flags, origin_server_ts, redacted_by, replaces, chain_nid,
            chain_place, previous, auth, transaction_key, cuts, json, notifying, state_after)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
            $23)
        """)

    /// Adds an event. `position` is the one taken for it, or null; the event's own `position` does not count.
    public mutating func insert(_ event: StoredEvent, position: SQLValue) {
        run(
            Self.insertEvent, event.nid.value, .blob(StoredEvent.key(of: event.eventID)),
            .blob(PackedEventID.pack(event.eventID)),
            event.room.value, position, .integer(event.orderDepth), event.type.value, event.sender.value,
            .optional(event.stateKey?.rawValue), .optional(event.stateBefore?.rawValue), .integer(event.flags.rawValue),
            .integer(event.originServerTS), .optional(event.redactedBy?.rawValue), .optional(event.replaces?.rawValue),
            .optional(event.chain?.chain),
            .optional(event.chain?.place),
            .blob(PackedNumbers.pack(event.previous.map(\.rawValue))),
            .blob(PackedNumbers.pack(event.auth.map(\.rawValue))),
            event.transactionKey.map(SQLValue.identifier) ?? .null,
            .blob(StoredEvent.packCuts(event.cuts)), .blob(PackedEvent.pack(event.json)),
            .optional(event.notifying?.rawValue),
            .optional(event.stateAfter?.rawValue))
    }

    private static let placeEvent = Statement(
        """
        UPDATE events SET position = $2, order_depth = $3, state_before = $4, state_after = $5, flags = $6, replaces = $7,
            notifying = $8, previous = $9, auth = $10, redacted_by = $11, chain_nid = coalesce($12, chain_nid),
            chain_place = coalesce($13, chain_place)
        WHERE event_nid = $1 AND position IS NULL
        """)

    /// Gives an event that was known as an outlier its place in the room.
    public mutating func place(_ event: StoredEvent, position: SQLValue) {
        expect(
            1, otherwise: "event \(event.eventID) has a place already", Self.placeEvent, event.nid.value, position,
            .integer(event.orderDepth), .optional(event.stateBefore?.rawValue), .optional(event.stateAfter?.rawValue),
            .integer(event.flags.rawValue), .optional(event.replaces?.rawValue),
            .optional(event.notifying?.rawValue), .blob(PackedNumbers.pack(event.previous.map(\.rawValue))),
            .blob(PackedNumbers.pack(event.auth.map(\.rawValue))), .optional(event.redactedBy?.rawValue),
            .optional(event.chain?.chain), .optional(event.chain?.place))
        topics.append(.event(event.nid))
    }

    private static let insertRedaction = Statement(
        "INSERT INTO redactions (target_key, event_nid) VALUES ($1, $2) ON CONFLICT DO NOTHING")
    private static let markRedacted = Statement(
        "UPDATE events SET redacted_by = $2, notifying = NULL WHERE event_key = $1 AND redacted_by IS NULL")

    private static let planOverwrite = Statement(
        "INSERT INTO overwrites (due_ts, event_nid) SELECT $2, event_nid FROM events WHERE event_key = $1 ON CONFLICT DO NOTHING"
    )

    /// Lets a redaction take effect on its target, now or when the target comes.
    ///
    /// - Parameter due: when the target's bytes are to be overwritten, in milliseconds since 1970.
    public mutating func redact(_ target: EventID, by redaction: EventNID, overwriteAt due: Int64) {
        let key = SQLValue.blob(StoredEvent.key(of: target))
        run(Self.insertRedaction, key, redaction.value)
        run(Self.markRedacted, key, redaction.value)
        run(Self.planOverwrite, key, .integer(due))
    }

    private static let forgetRedaction = Statement("DELETE FROM redactions WHERE target_key = $1 AND event_nid = $2")
    private static let dropOverwrite = Statement(
        """
        DELETE FROM overwrites WHERE event_nid IN (SELECT event_nid FROM events WHERE event_key = $1 AND redacted_by = $2)
        """)
    private static let unmarkRedacted = Statement(
        "UPDATE events SET redacted_by = NULL WHERE event_key = $1 AND redacted_by = $2")

    /// A redaction has no effect after all. What its target's bytes were overwritten with stays.
    public mutating func takeBack(redaction: EventNID, of target: EventID) {
        let key = SQLValue.blob(StoredEvent.key(of: target))
        for statement in [Self.forgetRedaction, Self.dropOverwrite, Self.unmarkRedacted] {
            run(statement, key, redaction.value)
        }
    }

    /// Plans to overwrite the bytes of an event that came after its redaction.
    public mutating func planOverwrite(of event: EventID, at due: Int64) {
        run(Self.planOverwrite, .blob(StoredEvent.key(of: event)), .integer(due))
    }

    /// Notes a redaction whose target has not come yet.
    public mutating func remember(redaction: EventNID, of target: EventID) {
        run(Self.insertRedaction, .blob(StoredEvent.key(of: target)), redaction.value)
    }
}
