import MatrixCore

/// What was known last of a user's being there.
public struct PresenceRecord: Sendable, Hashable {
    /// The raw values are stored.
    public enum State: Int64, Sendable {
        case offline = 0
        case online = 1
        case unavailable = 2
    }

    public var state: State
    public var status: String?
    /// Milliseconds since 1970.
    public var lastActiveTS: Int64

    public init(state: State, status: String?, lastActiveTS: Int64) {
        self.state = state
        self.status = status
        self.lastActiveTS = lastActiveTS
    }
}

extension Database {
    private static let one = Statement("SELECT state, status, last_active_ts FROM presence WHERE user_nid = $1")

    /// What is known of the users' presence; those of whom nothing is known are left out. A point read for each.
    public func presence(of users: [UserNID]) async throws -> [UserNID: PresenceRecord] {
        let rows = try await read { reader in
            try await reader.queryEach(Self.one, users.map { [$0.value] }) { index, row in
                (
                    users[index],
                    PresenceRecord(
                        state: .init(rawValue: row.integer(0)) ?? .offline, status: row.optionalText(1),
                        lastActiveTS: row.integer(2))
                )
            }
        }
        return Dictionary(rows) { $1 }
    }

    private static let present = Statement(
        "SELECT user_nid, state, status, last_active_ts FROM presence WHERE state <> 0 LIMIT $1")

    /// Users who were not offline when they were noted last. Reads the whole table.
    public func present(limit: Int) async throws -> [(UserNID, PresenceRecord)] {
        try await read { reader in
            try await reader.query(Self.present, [.integer(Int64(limit))]) { row in
                (
                    UserNID(row.integer(0)),
                    PresenceRecord(
                        state: .init(rawValue: row.integer(1)) ?? .offline, status: row.optionalText(2),
                        lastActiveTS: row.integer(3))
                )
            }
        }
    }
}

extension Write {
    private static let put = Statement(
        """
        INSERT INTO presence (user_nid, state, status, last_active_ts) VALUES ($1, $2, $3, $4)
        ON CONFLICT (user_nid) DO UPDATE SET state = excluded.state, status = excluded.status,
            last_active_ts = excluded.last_active_ts
        """)

    public mutating func putPresence(_ record: PresenceRecord, of user: UserNID) {
        run(
            Self.put, user.value, .integer(record.state.rawValue), .optional(record.status),
            .integer(record.lastActiveTS))
        topics.append(.presence(user))
    }
}
