import MatrixCore

/// An event that is to be sent later, or was to be (MSC4140).
public struct DelayedEvent: Sendable {
    public let delayID: String
    public let user: UserNID
    public let deviceID: String
    public let room: RoomNID
    public let type: String
    /// nil for message events.
    public let stateKey: String?
    public let content: [UInt8]
    /// How long it is sticky, in milliseconds; nil if it isn't.
    public let sticky: Int64?
    /// The time that an application service gives it.
    public let timestamp: Int64?
    public let transactionKey: [UInt8]
    /// Milliseconds from being scheduled to being sent.
    public let delay: Int64
    public let scheduledAt: Int64
    public var finalisedAt: Int64?
    public var eventID: String?
    /// Why it could not be sent: an error object.
    public var error: [UInt8]?

    public var dueAt: Int64 { scheduledAt + delay }

    public init(
        delayID: String, user: UserNID, deviceID: String, room: RoomNID, type: String, stateKey: String?,
        content: [UInt8], sticky: Int64?, timestamp: Int64?, transactionKey: [UInt8], delay: Int64, scheduledAt: Int64
    ) {
        self.delayID = delayID
        self.user = user
        self.deviceID = deviceID
        self.room = room
        self.type = type
        self.stateKey = stateKey
        self.content = content
        self.sticky = sticky
        self.timestamp = timestamp
        self.transactionKey = transactionKey
        self.delay = delay
        self.scheduledAt = scheduledAt
    }

    static let columns = """
        delay_id, user_nid, device_id, room_nid, type, state_key, content, sticky, origin_server_ts, transaction_key, delay, \
        scheduled_ts, finalised_ts, event_id, error
        """

    init(row: any Row) {
        self.init(
            delayID: row.text(0), user: UserNID(row.integer(1)), deviceID: row.text(2), room: RoomNID(row.integer(3)),
            type: row.text(4), stateKey: row.optionalText(5), content: row.blob(6), sticky: row.optionalInteger(7),
            timestamp: row.optionalInteger(8), transactionKey: row.blob(9), delay: row.integer(10),
            scheduledAt: row.integer(11))
        finalisedAt = row.optionalInteger(12)
        eventID = row.optionalText(13)
        error = row.optionalBlob(14)
    }
}

extension Database {
    private static let one = Statement("SELECT \(DelayedEvent.columns) FROM delayed_events WHERE delay_id = $1")
    private static let ofTransaction = Statement(
        "SELECT \(DelayedEvent.columns) FROM delayed_events WHERE user_nid = $1 AND transaction_key = $2")
    private static let scheduled = Statement(
        """
        SELECT \(DelayedEvent.columns) FROM delayed_events WHERE user_nid = $1 AND finalised_ts IS NULL
        ORDER BY scheduled_ts + delay, delay_id
        """)
    private static let due = Statement(
        """
        SELECT \(DelayedEvent.columns) FROM delayed_events WHERE due_ts IS NOT NULL AND due_ts <= $1
        ORDER BY due_ts, delay_id LIMIT $2
        """)
    private static let next = Statement("SELECT min(due_ts) FROM delayed_events WHERE due_ts IS NOT NULL")

    public func delayedEvent(_ delayID: String) async throws -> DelayedEvent? {
        try await readOnce { try await $0.first(Self.one, [.text(delayID)]) { DelayedEvent(row: $0) } }
    }

    /// The event that a transaction has scheduled.
    public func delayedEvent(ofTransaction key: [UInt8], by user: UserNID) async throws -> DelayedEvent? {
        try await readOnce {
            try await $0.first(Self.ofTransaction, [user.value, .blob(key)]) { DelayedEvent(row: $0) }
        }
    }

    /// The events that a user has scheduled and that are not sent yet, the next to be sent first.
    public func delayedEvents(of user: UserNID) async throws -> [DelayedEvent] {
        try await readOnce { try await $0.query(Self.scheduled, [user.value]) { DelayedEvent(row: $0) } }
    }

    /// Events whose time has come, in the order of their times.
    public func delayedEventsDue(at now: Int64, limit: Int) async throws -> [DelayedEvent] {
        try await read {
            try await $0.query(Self.due, [.integer(now), .integer(Int64(limit))]) { DelayedEvent(row: $0) }
        }
    }

    /// When the next event is due; nil if none is scheduled.
    public func nextDelayedEvent() async throws -> Int64? {
        try await readOnce { try await $0.first(Self.next, []) { $0.optionalInteger(0) } } ?? nil
    }
}

extension Write {
    private static let insert = Statement(
        """
        INSERT INTO delayed_events (delay_id, user_nid, device_id, room_nid, type, state_key, content, sticky,
            origin_server_ts, transaction_key, delay, scheduled_ts, due_ts)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
        """)

    /// Schedules an event; fails as a constraint if its transaction has scheduled one already.
    public mutating func schedule(_ event: DelayedEvent) {
        run(
            Self.insert, .text(event.delayID), event.user.value, .text(event.deviceID), event.room.value,
            .identifier(event.type), event.stateKey.map { .identifier($0) } ?? .null, .blob(event.content),
            .optional(event.sticky), .optional(event.timestamp), .blob(event.transactionKey), .integer(event.delay),
            .integer(event.scheduledAt), .integer(event.dueAt))
    }

    private static let restart = Statement(
        """
        UPDATE delayed_events SET scheduled_ts = $2, due_ts = $2 + delay
        WHERE delay_id = $1 AND finalised_ts IS NULL
        """)
    private static let finalise = Statement(
        """
        UPDATE delayed_events SET finalised_ts = $2, due_ts = NULL, event_id = $3, error = $4
        WHERE delay_id = $1 AND finalised_ts IS NULL
        """)
    private static let finaliseIfDue = Statement(
        """
        UPDATE delayed_events SET finalised_ts = $2, due_ts = NULL, event_id = $3, error = $4
        WHERE delay_id = $1 AND finalised_ts IS NULL AND due_ts <= $5
        """)
    private static let deleteOld = Statement(
        "DELETE FROM delayed_events WHERE user_nid = $1 AND finalised_ts IS NOT NULL AND finalised_ts < $2")
    private static let deleteBeyond = Statement(
        """
        DELETE FROM delayed_events WHERE delay_id IN (
            SELECT delay_id FROM delayed_events WHERE user_nid = $1 AND finalised_ts IS NOT NULL
            ORDER BY finalised_ts DESC, delay_id LIMIT 1000 OFFSET $2)
        """)

    /// Begins the delay anew; fails as a conflict if the event is not scheduled any more.
    public mutating func restart(_ event: DelayedEvent, at now: Int64) {
        expect(
            1, otherwise: "the delayed event is finalised", Self.restart, .text(event.delayID), .integer(now))
    }

    /// Notes that an event was sent, has failed, or was cancelled (neither), and forgets what was finalised long ago. Fails as a
    /// conflict if it is not scheduled any more: whatever is in the same write then doesn't happen either.
    ///
    /// - Parameter due: the time by which it must be due; a delay that was begun anew meanwhile counts.
    public mutating func finalise(
        _ event: DelayedEvent, sentAs eventID: EventID? = nil, error: [UInt8]? = nil, at now: Int64,
        ifDueAt due: Int64? = nil, keeping most: Int, since: Int64
    ) {
        let values: [SQLValue] = [
            .text(event.delayID), .integer(now), eventID.map { .identifier($0.string) } ?? .null, .optional(error),
        ]
        if let due {
            expect(
                1, otherwise: "the delayed event is not due", Self.finaliseIfDue, values[0], values[1], values[2],
                values[3], .integer(due))
        } else {
            expect(
                1, otherwise: "the delayed event is finalised", Self.finalise, values[0], values[1], values[2],
                values[3])
        }
        run(Self.deleteOld, event.user.value, .integer(since))
        run(Self.deleteBeyond, event.user.value, .integer(Int64(most)))
    }
}
