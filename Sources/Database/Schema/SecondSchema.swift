extension Migration {
    /// Fields of profiles besides name and picture; relations between events.
    static let second = Migration(
        version: 2, oldestBinary: 1,
        sql: [
            """
            CREATE TABLE profile_fields (
                user_nid NUMBER NOT NULL, field TEXT NOT NULL, value BYTES NOT NULL, PRIMARY KEY (user_nid, field)) CLUSTERED
            """,
            """
            CREATE TABLE relations (
                parent_key BYTES NOT NULL, rel_type BYTES NOT NULL, order_depth NUMBER NOT NULL, event_nid NUMBER NOT NULL,
                room_nid NUMBER NOT NULL, PRIMARY KEY (parent_key, rel_type, order_depth, event_nid)) CLUSTERED
            """,
            "CREATE TABLE background_migrations (name TEXT PRIMARY KEY, cursor NUMBER NOT NULL) CLUSTERED",
            "INSERT INTO background_migrations VALUES ('relations', 0)",
            "CREATE INDEX relations_by_child ON relations (event_nid)",
            "CREATE INDEX relations_by_room ON relations (room_nid, rel_type, order_depth)",
        ])
}
