/// A media ID that was given out before its content came (Client-Server API, `POST /_matrix/media/v1/create`).
public struct PendingMedia: Sendable {
    public let user: UserNID
    /// Milliseconds since 1970.
    public let expiresTS: Int64
}

extension Database {
    private static let find = Statement("SELECT user_nid, expires_ts FROM pending_media WHERE media_id = $1")

    public func pendingMedia(_ mediaID: String) async throws -> PendingMedia? {
        try await readOnce { reader in
            try await reader.first(Self.find, [.text(mediaID)]) {
                PendingMedia(user: UserNID($0.integer(0)), expiresTS: $0.integer(1))
            }
        }
    }

    private static let ends = Statement(
        "SELECT expires_ts FROM pending_media WHERE user_nid = $1 AND expires_ts > $2 ORDER BY expires_ts")

    /// When the media IDs of a user that have no content yet, and may still get it, expire.
    public func pendingMedia(of user: UserNID, at now: Int64) async throws -> [Int64] {
        try await readOnce { try await $0.query(Self.ends, [user.value, .integer(now)]) { $0.integer(0) } }
    }
}

extension Write {
    private static let insert = Statement(
        """
        INSERT INTO pending_media (media_id, user_nid, expires_ts)
        SELECT $1, $2, $3 WHERE (SELECT count(*) FROM pending_media WHERE user_nid = $2 AND expires_ts > $4) < $5
        """)
    private static let expire = Statement("DELETE FROM pending_media WHERE expires_ts <= $1")
    private static let delete = Statement(
        "DELETE FROM pending_media WHERE media_id = $1 AND user_nid = $2 AND expires_ts > $3")

    /// Notes a media ID whose content will come; fails as a conflict if the user waits with `most` others already.
    public mutating func insertPendingMedia(
        _ mediaID: String, of user: UserNID, expires: Int64, now: Int64, most: Int
    ) {
        run(Self.expire, .integer(now))
        expect(
            1, otherwise: "there are too many pending uploads", Self.insert, .text(mediaID), user.value,
            .integer(expires), .integer(now), .integer(Int64(most)))
    }

    /// The content has come; fails as a conflict if it came before, or too late.
    public mutating func completePendingMedia(_ mediaID: String, of user: UserNID, now: Int64) {
        expect(1, otherwise: "the upload is over", Self.delete, .text(mediaID), user.value, .integer(now))
        // Those who wait for the content have registered for what concerns its uploader.
        topics.append(.user(user))
    }
}
