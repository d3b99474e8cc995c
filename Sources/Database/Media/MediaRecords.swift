/// What is known of an uploaded file. The file itself lies in the blob store under the hash of its content.
public struct MediaRecord: Sendable {
    public let mediaID: String
    public let uploader: UserNID
    public let createdTS: Int64
    public let contentType: String?
    public let fileName: String?
    /// Bytes.
    public let size: Int64
    /// SHA-256 of the content.
    public let contentHash: [UInt8]

    public init(
        mediaID: String, uploader: UserNID, createdTS: Int64, contentType: String?, fileName: String?, size: Int64,
        contentHash: [UInt8]
    ) {
        self.mediaID = mediaID
        self.uploader = uploader
        self.createdTS = createdTS
        self.contentType = contentType
        self.fileName = fileName
        self.size = size
        self.contentHash = contentHash
    }
}

extension Database {
    private static let find = Statement(
        "SELECT uploader_nid, created_ts, content_type, file_name, size, content_hash FROM media WHERE media_id = $1")

    public func media(_ mediaID: String) async throws -> MediaRecord? {
        try await readOnce { reader in
            try await reader.first(Self.find, [.text(mediaID)]) { row in
                MediaRecord(
                    mediaID: mediaID, uploader: UserNID(row.integer(0)), createdTS: row.integer(1),
                    contentType: row.optionalText(2), fileName: row.optionalText(3), size: row.integer(4),
                    contentHash: row.blob(5))
            }
        }
    }
}

extension Database {
    private static let hashes = Statement("SELECT DISTINCT content_hash FROM media ORDER BY content_hash")

    /// The hashes of all files that the database knows.
    public func mediaHashes() async throws -> [[UInt8]] {
        try await read { try await $0.query(Self.hashes, []) { $0.blob(0) } }
    }
}

extension Write {
    private static let insert = Statement(
        """
        INSERT INTO media (media_id, uploader_nid, created_ts, content_type, file_name, size, content_hash)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        """)

    public mutating func insert(_ media: MediaRecord) {
        run(
            Self.insert, .text(media.mediaID), media.uploader.value, .integer(media.createdTS),
            .optional(media.contentType),
            .optional(media.fileName), .integer(media.size), .blob(media.contentHash))
    }
}
