import MatrixCore

/// That an event is a notification by the push rules that everybody starts with (Client-Server API, "Push Rules").
public struct NotifyingMark: Sendable, Hashable {
    /// The root of the thread that the event is in; 0 for the main timeline.
    public let thread: EventNID
    /// Whether it is a highlight for everybody: the room is mentioned, or upgraded.
    public let highlights: Bool

    public init(thread: EventNID, highlights: Bool) {
        self.thread = thread
        self.highlights = highlights
    }

    init(rawValue: Int64) { self.init(thread: EventNID(rawValue >> 1), highlights: rawValue & 1 == 1) }

    var rawValue: Int64 { thread.rawValue << 1 | (highlights ? 1 : 0) }
}

/// An event that notifies, as counting needs it.
public struct NotifyingEvent: Sendable {
    public let event: EventNID
    public let place: Database.OrderedPlace
    public let mark: NotifyingMark
    public let sender: UserNID
}

/// What an event is to one user, where that differs from what it is to everybody.
public struct NotificationRow: Sendable {
    public struct Outcome: OptionSet, Sendable, Hashable {
        public let rawValue: Int64
        public init(rawValue: Int64) { self.rawValue = rawValue }

        public static let notifies = Outcome(rawValue: 1)
        public static let highlights = Outcome(rawValue: 2)
        /// The event notifies everybody else.
        public static let isMarked = Outcome(rawValue: 4)
        /// The user has sent it, in a thread that notifies only some: there, what was before is read.
        public static let isOwn = Outcome(rawValue: 8)
    }

    public let event: EventNID
    public let place: Database.OrderedPlace
    public let thread: EventNID
    public let outcome: Outcome
}

extension Database {
    /// Events of a room that are looked at for those that notify.
    private static let mostExamined: Int64 = 10_000

    private static let notifying = Statement(
        """
        SELECT event_nid, order_depth, position, notifying, sender_nid FROM (
            SELECT event_nid, order_depth, position, notifying, sender_nid FROM events
            WHERE room_nid = $1 AND position IS NOT NULL AND (order_depth, position) > ($2, $3)
            ORDER BY order_depth DESC, position DESC LIMIT $4) AS newest
        WHERE notifying IS NOT NULL ORDER BY order_depth DESC, position DESC LIMIT $5
        """)

    /// The newest events behind a place that notify, newest first: as many as wanted, among the 10,000 newest. One
    /// range of one index, which holds all that is asked for.
    public func notifyingEvents(
        in room: RoomNID, after place: OrderedPlace, limit: Int, _ reader: any Reader
    ) async throws -> [NotifyingEvent] {
        try await reader.query(
            Self.notifying,
            [
                room.value, .integer(place.depth), .integer(place.position), .integer(Self.mostExamined),
                .integer(Int64(limit)),
            ]
        ) { row in
            NotifyingEvent(
                event: EventNID(row.integer(0)), place: OrderedPlace(depth: row.integer(1), position: row.integer(2)),
                mark: NotifyingMark(rawValue: row.integer(3)), sender: UserNID(row.integer(4)))
        }
    }

    private static let end = Statement(
        """
        SELECT order_depth, position FROM events WHERE room_nid = $1 AND position IS NOT NULL
        ORDER BY order_depth DESC, position DESC LIMIT 1
        """)

    /// The place of a room's newest event; nil for a room without events. One read at the end of an index.
    public func end(of room: RoomNID, _ reader: any Reader) async throws -> OrderedPlace? {
        try await reader.first(Self.end, [room.value]) {
            OrderedPlace(depth: $0.integer(0), position: $0.integer(1))
        }
    }

    private static let rows = Statement(
        """
        SELECT event_nid, order_depth, position, thread_nid, outcome FROM notifications
        WHERE user_nid = $1 AND room_nid = $2 AND (order_depth, position) > ($3, $4)
        ORDER BY order_depth DESC, position DESC LIMIT $5
        """)

    /// What events of a room are to a user, where that differs from what they are to everybody; newest first. One range.
    public func notifications(
        of user: UserNID, in room: RoomNID, after place: OrderedPlace, limit: Int, _ reader: any Reader
    ) async throws -> [NotificationRow] {
        try await reader.query(
            Self.rows,
            [user.value, room.value, .integer(place.depth), .integer(place.position), .integer(Int64(limit))]
        ) { row in
            NotificationRow(
                event: EventNID(row.integer(0)), place: OrderedPlace(depth: row.integer(1), position: row.integer(2)),
                thread: EventNID(row.integer(3)), outcome: .init(rawValue: row.integer(4)))
        }
    }

    private static let watchers = Statement(
        """
        SELECT m.user_nid FROM memberships m JOIN accounts a ON a.user_nid = m.user_nid
        WHERE m.room_nid = $1 AND m.membership = 1 AND a.has_push_rules = 1
        """)

    /// The members of a room with push rules of their own. One range of one index and a point read for each member.
    public func membersWithPushRules(in room: RoomNID, _ reader: any Reader) async throws -> [UserNID] {
        try await reader.query(Self.watchers, [room.value]) { UserNID($0.integer(0)) }
    }

    private static let isWatcher = Statement(
        """
        SELECT 1 FROM memberships m JOIN accounts a ON a.user_nid = m.user_nid
        WHERE m.user_nid = $2 AND m.room_nid = $1 AND m.membership = 1 AND a.has_push_rules = 1
        """)

    /// Those of the users who are members of a room and have push rules of their own. Two point reads for each.
    public func membersWithPushRules(
        among users: [UserNID], in room: RoomNID, _ reader: any Reader
    ) async throws -> [UserNID] {
        try await reader.queryEach(Self.isWatcher, users.map { [room.value, $0.value] }) { index, _ in users[index] }
    }
}

extension Write {
    private static let put = Statement(
        """
        INSERT INTO notifications (user_nid, room_nid, order_depth, position, event_nid, thread_nid, outcome)
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING
        """, isIndependent: true)

    /// Notes what an event is to a user, where that differs from what it is to everybody.
    public mutating func notify(
        _ user: UserNID, of event: StoredEvent, position: SQLValue, thread: EventNID, _ outcome: NotificationRow.Outcome
    ) {
        run(
            Self.put, user.value, event.room.value, .integer(event.orderDepth), position, event.nid.value, thread.value,
            .integer(outcome.rawValue))
        topics.append(.roomOf(event.room, user))
    }

    private static let mark = Statement("UPDATE accounts SET has_push_rules = 1 WHERE user_nid = $1")

    /// Notes that a user has push rules of their own, and that they are others now.
    public mutating func changePushRules(of user: UserNID) {
        run(Self.mark, user.value)
        topics.append(.pushRules(user))
    }
}
