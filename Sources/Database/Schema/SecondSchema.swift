extension Migration {
    /// Fields of profiles besides name and picture.
    static let second = Migration(
        version: 2, oldestBinary: 1,
        sql: [
            """
            CREATE TABLE profile_fields (
                user_nid NUMBER NOT NULL, field TEXT NOT NULL, value BYTES NOT NULL, PRIMARY KEY (user_nid, field)) CLUSTERED
            """
        ])
}
