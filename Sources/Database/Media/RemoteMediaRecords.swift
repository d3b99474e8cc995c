import MatrixCore

/// Media of other servers that are kept here.
extension Database {
    private static let find = Statement(
        """
        SELECT fetched_ts, content_type, file_name, size, content_hash FROM remote_media
        WHERE server_nid = $1 AND media_id = $2
        """)

    public func remoteMedia(_ mediaID: String, of server: ServerNID) async throws -> MediaRecord? {
        try await readOnce { reader in
            try await reader.first(Self.find, [server.value, .text(mediaID)]) { row in
                MediaRecord(
                    mediaID: mediaID, uploader: UserNID(0), createdTS: row.integer(0), contentType: row.optionalText(1),
                    fileName: row.optionalText(2), size: row.integer(3), contentHash: row.blob(4))
            }
        }
    }

    /// A name of content of another server.
    public struct RemoteMediaName: Sendable, Hashable {
        public let server: ServerNID
        public let mediaID: String
        public let fetchedTS: Int64
        public let hash: [UInt8]
    }

    private static let old = Statement(
        """
        SELECT server_nid, media_id, fetched_ts, content_hash FROM remote_media WHERE fetched_ts < $1
        ORDER BY server_nid, media_id LIMIT $2
        """)

    /// Reads all of the table: for what is done now and then.
    public func remoteMedia(fetchedBefore time: Int64, limit: Int) async throws -> [RemoteMediaName] {
        try await read { reader in
            try await reader.query(Self.old, [.integer(time), .integer(Int64(limit))]) { row in
                RemoteMediaName(
                    server: ServerNID(row.integer(0)), mediaID: row.text(1), fetchedTS: row.integer(2),
                    hash: row.blob(3))
            }
        }
    }

    private static let named = [
        "SELECT 1 FROM media WHERE content_hash = $1 LIMIT 1",
        "SELECT 1 FROM remote_media WHERE content_hash = $1 LIMIT 1",
    ].map { Statement($0) }

    /// Whether content is somebody's upload or another server's file. (Thumbnails are made again when they are missing.)
    public func isContentNamed(_ hash: [UInt8]) async throws -> Bool {
        try await read { reader in
            for statement in Self.named {
                if try await reader.first(statement, [.blob(hash)], { _ in true }) != nil { return true }
            }
            return false
        }
    }
}

extension Write {
    private static let insert = Statement(
        """
        INSERT INTO remote_media (server_nid, media_id, fetched_ts, content_type, file_name, size, content_hash)
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (server_nid, media_id) DO UPDATE SET
            fetched_ts = excluded.fetched_ts, content_type = excluded.content_type, file_name = excluded.file_name,
            size = excluded.size, content_hash = excluded.content_hash
        """)

    public mutating func insert(_ media: MediaRecord, of server: ServerNID) {
        run(
            Self.insert, server.value, .text(media.mediaID), .integer(media.createdTS), .optional(media.contentType),
            .optional(media.fileName), .integer(media.size), .blob(media.contentHash))
    }

    private static let drop = Statement(
        "DELETE FROM remote_media WHERE server_nid = $1 AND media_id = $2 AND fetched_ts = $3")

    /// Does nothing for one that was fetched again meanwhile.
    public mutating func dropRemoteMedia(_ file: Database.RemoteMediaName) {
        run(Self.drop, file.server.value, .text(file.mediaID), .integer(file.fetchedTS))
    }
}
