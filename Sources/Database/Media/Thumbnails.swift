/// Which of the smaller pictures of a content.
public struct ThumbnailKey: Sendable, Hashable {
    /// SHA-256 of the content.
    public let contentHash: [UInt8]
    public let width: Int
    public let height: Int
    public let crops: Bool
    public let animates: Bool

    public init(contentHash: [UInt8], width: Int, height: Int, crops: Bool, animates: Bool) {
        self.contentHash = contentHash
        self.width = width
        self.height = height
        self.crops = crops
        self.animates = animates
    }

    fileprivate var values: [SQLValue] {
        [.blob(contentHash), .integer(Int64(width)), .integer(Int64(height)), .flag(crops), .flag(animates)]
    }
}

/// A smaller picture that was made.
public struct ThumbnailRecord: Sendable {
    public let contentType: String
    /// Bytes.
    public let size: Int64
    /// SHA-256 of the thumbnail, under which it lies in the blob store.
    public let hash: [UInt8]

    public init(contentType: String, size: Int64, hash: [UInt8]) {
        self.contentType = contentType
        self.size = size
        self.hash = hash
    }
}

/// What came of the attempt to make a thumbnail.
public enum ThumbnailOutcome: Sendable {
    case made(ThumbnailRecord)
    /// The content is no picture that can be decoded, and never will be.
    case impossible
}

extension Database {
    private static let find = Statement(
        """
        SELECT content_type, size, thumbnail_hash FROM thumbnails
        WHERE content_hash = $1 AND width = $2 AND height = $3 AND crops = $4 AND animates = $5
        """)

    /// nil if nobody has tried to make it yet.
    public func thumbnail(_ key: ThumbnailKey) async throws -> ThumbnailOutcome? {
        try await readOnce { reader in
            try await reader.first(Self.find, key.values) { row in
                guard let hash = row.optionalBlob(2) else { return .impossible }
                return .made(ThumbnailRecord(contentType: row.text(0), size: row.integer(1), hash: hash))
            }
        }
    }
}

extension Database {
    private static let made = Statement(
        "SELECT thumbnail_hash FROM thumbnails WHERE content_hash = $1 AND thumbnail_hash IS NOT NULL")

    /// The hashes of all thumbnails of a content.
    public func thumbnailHashes(of content: [UInt8]) async throws -> [[UInt8]] {
        try await readOnce { try await $0.query(Self.made, [.blob(content)]) { $0.blob(0) } }
    }
}

extension Write {
    private static let drop = Statement("DELETE FROM thumbnails WHERE content_hash = $1")

    public mutating func dropThumbnails(of content: [UInt8]) { run(Self.drop, .blob(content)) }

    private static let put = Statement(
        """
        INSERT INTO thumbnails (content_hash, width, height, crops, animates, content_type, size, thumbnail_hash)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (content_hash, width, height, crops, animates) DO UPDATE SET
            content_type = excluded.content_type, size = excluded.size, thumbnail_hash = excluded.thumbnail_hash
        """)

    public mutating func putThumbnail(_ key: ThumbnailKey, _ outcome: ThumbnailOutcome) {
        switch outcome {
        case .made(let thumbnail):
            run(
                Self.put, key.values + [.text(thumbnail.contentType), .integer(thumbnail.size), .blob(thumbnail.hash)])
        case .impossible: run(Self.put, key.values + [.null, .integer(0), .null])
        }
    }
}
