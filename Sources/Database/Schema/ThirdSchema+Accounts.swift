extension ThirdSchema {
    static let accounts = [
        // What an account may do: bits of `AccountStanding`.
        "ALTER TABLE accounts ADD COLUMN standing NUMBER NOT NULL DEFAULT 0",
        "CREATE INDEX accounts_erased ON accounts (user_nid) WHERE standing >= 8",
        "ALTER TABLE devices ADD COLUMN user_agent TEXT",
        // Refresh tokens, by their hashes. One that came of another one names it: that stays valid until this one or its access
        // token is used, and is then kept as spent for a while, so that its being used again is noticed.
        """
        CREATE TABLE refresh_tokens (
            token_hash BYTES PRIMARY KEY, user_nid NUMBER NOT NULL, device_id TEXT NOT NULL, parent_hash BYTES,
            created_ts NUMBER NOT NULL, spent NUMBER NOT NULL DEFAULT 0) CLUSTERED
        """,
        "CREATE INDEX refresh_tokens_by_device ON refresh_tokens (user_nid, device_id)",
        "CREATE INDEX refresh_tokens_by_parent ON refresh_tokens (parent_hash)",
        // The refresh token that was given out together with an access token.
        "ALTER TABLE access_tokens ADD COLUMN refresh_hash BYTES",
        "CREATE INDEX access_tokens_by_refresh ON access_tokens (refresh_hash)",
        // Tokens for one sign-in, and those that tell another service who somebody is.
        """
        CREATE TABLE brief_tokens (
            token_hash BYTES PRIMARY KEY, kind NUMBER NOT NULL, user_nid NUMBER NOT NULL,
            expires_ts NUMBER NOT NULL) CLUSTERED
        """,
        "CREATE INDEX brief_tokens_by_user ON brief_tokens (user_nid)",
        "CREATE INDEX brief_tokens_by_expiry ON brief_tokens (expires_ts)",
        // Which versions of which policies people have accepted.
        """
        CREATE TABLE accepted_policies (
            user_nid NUMBER NOT NULL, policy TEXT NOT NULL, version TEXT NOT NULL, accepted_ts NUMBER NOT NULL,
            PRIMARY KEY (user_nid, policy, version)) CLUSTERED
        """,
        """
        CREATE TABLE reports (
            report_id TEXT PRIMARY KEY, reporter_nid NUMBER NOT NULL, created_ts NUMBER NOT NULL, room_nid NUMBER,
            event_id BYTES, user_id BYTES, reason TEXT, score NUMBER) CLUSTERED
        """,
        "CREATE INDEX reports_by_time ON reports (created_ts)",
    ]
}
