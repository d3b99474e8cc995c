import MatrixCore

/// Media of other servers that are kept here.
extension Database {
    private static let find = Statement(
        """
        SELECT fetched_ts, content_type, file_name, size, content_hash FROM remote_media
        WHERE server_nid = $1 AND media_id = $2
        """)

    public func remoteMedia(_ mediaID: String, of server: ServerNID) async throws -> MediaRecord? {
        try await read { reader in
            try await reader.first(Self.find, [server.value, .text(mediaID)]) { row in
                MediaRecord(
                    mediaID: mediaID, uploader: UserNID(0), createdTS: row.integer(0), contentType: row.optionalText(1),
                    fileName: row.optionalText(2), size: row.integer(3), contentHash: row.blob(4))
            }
        }
    }
}

extension Write {
    private static let insert = Statement(
        """
        INSERT INTO remote_media (server_nid, media_id, fetched_ts, content_type, file_name, size, content_hash)
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING
        """)

    public mutating func insert(_ media: MediaRecord, of server: ServerNID) {
        run(
            Self.insert, server.value, .text(media.mediaID), .integer(media.createdTS), .optional(media.contentType),
            .optional(media.fileName), .integer(media.size), .blob(media.contentHash))
    }
}
