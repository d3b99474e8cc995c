extension Migration {
    /// Fields of profiles besides name and picture; events by their time.
    static let second = Migration(
        version: 2, oldestBinary: 1,
        sql: [
            """
            CREATE TABLE profile_fields (
                user_nid NUMBER NOT NULL, field TEXT NOT NULL, value BYTES NOT NULL, PRIMARY KEY (user_nid, field)) CLUSTERED
            """,
            """
            CREATE INDEX events_by_time ON events (room_nid, origin_server_ts, order_depth) WHERE position IS NOT NULL
            """,
        ])
}
