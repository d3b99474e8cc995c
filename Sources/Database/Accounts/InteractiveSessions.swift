extension Database {
    private static let find = Statement(
        "SELECT state FROM interactive_sessions WHERE session_id = $1 AND created_ts > $2")

    /// The state of a session of interactive authentication that was begun after `since`.
    public func interactiveSession(_ sessionID: String, since: Int64) async throws -> [UInt8]? {
        try await readOnce { try await $0.first(Self.find, [.text(sessionID), .integer(since)]) { $0.blob(0) } }
    }
}

extension Write {
    private static let put = Statement(
        """
        INSERT INTO interactive_sessions (session_id, created_ts, state) VALUES ($1, $2, $3)
        ON CONFLICT (session_id) DO UPDATE SET state = excluded.state
        """)
    private static let delete = Statement("DELETE FROM interactive_sessions WHERE session_id = $1")
    private static let expire = Statement("DELETE FROM interactive_sessions WHERE created_ts <= $1")

    public mutating func putInteractiveSession(_ sessionID: String, state: [UInt8], at time: Int64) {
        run(Self.put, .text(sessionID), .integer(time), .blob(state))
    }

    /// Ends a session; fails as a conflict if it is gone, so that it is used once.
    public mutating func endInteractiveSession(_ sessionID: String) {
        expect(1, otherwise: "the session is over", Self.delete, .text(sessionID))
    }

    public mutating func expireInteractiveSessions(before time: Int64) { run(Self.expire, .integer(time)) }
}
