extension ThirdSchema {
    static let media = [
        // Media IDs that were given out before their content came.
        """
        CREATE TABLE pending_media (
            media_id TEXT PRIMARY KEY, user_nid NUMBER NOT NULL, expires_ts NUMBER NOT NULL) CLUSTERED
        """,
        "CREATE INDEX pending_media_by_user ON pending_media (user_nid, expires_ts)",
        "CREATE INDEX pending_media_by_expiry ON pending_media (expires_ts)",
        // Smaller pictures of a content, or (without a hash) that there can be none. What stands here can be made again.
        """
        CREATE TABLE thumbnails (
            content_hash BYTES NOT NULL, width NUMBER NOT NULL, height NUMBER NOT NULL, crops NUMBER NOT NULL,
            animates NUMBER NOT NULL, content_type TEXT, size NUMBER NOT NULL, thumbnail_hash BYTES,
            PRIMARY KEY (content_hash, width, height, crops, animates)) CLUSTERED
        """,
    ]
}
