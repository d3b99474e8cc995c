import MatrixCore

/// What other servers have sent.
extension Database {
    private static let answer = Statement(
        "SELECT answer FROM inbound_transactions WHERE server_nid = $1 AND transaction_id = $2")

    /// What a transaction of a server was answered; nil if it has not come yet.
    public func answer(toTransaction id: String, of server: ServerNID) async throws -> [UInt8]? {
        try await readOnce { reader in
            try await reader.first(Self.answer, [server.value, .identifier(id)]) { $0.blob(0) }
        }
    }

    /// An event that waits for events before it.
    public struct StagedEvent: Sendable {
        public let position: Int64
        public let place: Int64
        /// The server that sent it.
        public let server: ServerNID
        public let received: Int64
        public let json: [UInt8]
    }

    private static let staged = Statement(
        """
        SELECT position, place, server_nid, received_ts, json FROM staged_events
        WHERE room_nid = $1 AND (position, place) > ($3, $4) ORDER BY position, place LIMIT $2
        """)

    /// The events of a room that wait, in the order in which they came.
    ///
    /// - Parameter place: behind which.
    public func stagedEvents(
        in room: RoomNID, after place: (position: Int64, place: Int64), limit: Int
    ) async throws -> [StagedEvent] {
        try await readOnce { reader in
            try await reader.query(
                Self.staged,
                [room.value, .integer(Int64(limit)), .integer(place.position), .integer(place.place)]
            ) {
                StagedEvent(
                    position: $0.integer(0), place: $0.integer(1), server: ServerNID($0.integer(2)),
                    received: $0.integer(3), json: $0.blob(4))
            }
        }
    }

    private static let countStaged = Statement("SELECT count(*) FROM staged_events WHERE room_nid = $1")

    public func countOfStagedEvents(in room: RoomNID) async throws -> Int {
        try await readOnce { try await $0.first(Self.countStaged, [room.value]) { Int($0.integer(0)) } } ?? 0
    }

    private static let stagedRooms = Statement("SELECT DISTINCT room_nid FROM staged_events")

    /// The rooms in which events wait.
    public func roomsWithStagedEvents() async throws -> [RoomNID] {
        try await read { try await $0.query(Self.stagedRooms, []) { RoomNID($0.integer(0)) } }
    }
}

extension Write {
    private static let putAnswer = Statement(
        """
        INSERT INTO inbound_transactions (server_nid, transaction_id, received_ts, answer) VALUES ($1, $2, $3, $4)
        ON CONFLICT DO NOTHING
        """)

    /// Remembers a transaction, so that it changes nothing when it comes again.
    public mutating func remember(
        transaction id: String, of server: ServerNID, answer: [UInt8], at time: Int64
    ) {
        run(Self.putAnswer, server.value, .identifier(id), .integer(time), .blob(answer))
    }

    private static let stage = Statement(
        """
        INSERT INTO staged_events (room_nid, position, place, event_key, server_nid, received_ts, json)
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (event_key) DO NOTHING
        """)

    /// Keeps an event until what it rests on is here.
    public mutating func stage(
        _ event: Event, in room: RoomNID, position: SQLValue, place: Int64, from server: ServerNID, at time: Int64
    ) {
        run(
            Self.stage, room.value, position, .integer(place), .blob(StoredEvent.key(of: event.eventID)), server.value,
            .integer(time), .blob(event.json))
    }

    private static let unstage = Statement("DELETE FROM staged_events WHERE event_key = $1")

    public mutating func unstage(_ event: EventID) { run(Self.unstage, .blob(StoredEvent.key(of: event))) }

    private static let putReceived = Statement(
        "INSERT INTO received_to_device (server_nid, message_id, received_ts) VALUES ($1, $2, $3)")

    /// Remembers a message to devices; fails as a constraint if it has come before.
    public mutating func remember(toDeviceMessage id: String, of server: ServerNID, at time: Int64) {
        run(Self.putReceived, server.value, .identifier(id), .integer(time))
    }

    private static let forgetTransactions = Statement("DELETE FROM inbound_transactions WHERE received_ts < $1")
    private static let forgetMessages = Statement("DELETE FROM received_to_device WHERE received_ts < $1")

    /// Forgets transactions and messages from before a time: nobody repeats them any more.
    public mutating func forgetTransactions(before time: Int64) {
        run(Self.forgetTransactions, .integer(time))
        run(Self.forgetMessages, .integer(time))
    }
}
