import Database
import MatrixCore

/// Uploads and downloads (Client-Server API, "Content repository").
public final class MediaService: Sendable {
    let database: Database
    let serverName: ServerName
    let surroundings: Surroundings
    let store: BlobStore
    let notifier: Notifier
    private let settings: Configuration.Media
    private let disk: BlockingPool
    private let thumbnails: ThumbnailService
    private let remote: RemoteMedia

    /// The most bytes of an upload.
    public var largestUpload: Int { settings.maxUploadSize }

    init(
        database: Database, serverName: ServerName, surroundings: Surroundings, settings: Configuration.Media,
        notifier: Notifier, disk: BlockingPool, pictures: BlockingPool, client: FederationClient
    ) throws {
        self.database = database
        self.serverName = serverName
        self.surroundings = surroundings
        self.settings = settings
        self.notifier = notifier
        self.disk = disk
        store = try BlobStore(directory: settings.path)
        store.clear(olderThan: database.engine.isShared ? 86_400 : 0)
        remote = RemoteMedia(
            client: client, database: database, surroundings: surroundings, store: store, disk: disk,
            mostBytes: settings.maxRemoteSize ?? settings.maxUploadSize)
        thumbnails = ThumbnailService(
            database: database, surroundings: surroundings, store: store, pictures: pictures)
    }

    static let none = MatrixError.notFound("There is no such file.")

    /// Media IDs consist of letters, digits, - and _ (Client-Server API, "Matrix Content (mxc://) URIs").
    static func isMediaID(_ text: String) -> Bool {
        (1...255).contains(text.utf8.count)
            && text.utf8.allSatisfy {
                ($0 | 0x20) &- 0x61 < 26 || $0 &- 0x30 < 10 || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: "_")
            }
    }

    // MARK: - Uploads

    /// An upload under way: bytes go to the disk as they arrive and are hashed on the way.
    public final class Upload: Sendable {
        private let file: ArrivingFile
        private let service: MediaService

        fileprivate init(_ service: MediaService) throws {
            self.service = service
            file = try ArrivingFile(
                in: service.store, named: service.surroundings.randomText(24), mostBytes: service.largestUpload)
        }

        /// - Throws: `M_TOO_LARGE` as soon as it is more than allowed.
        public func write(_ bytes: UnsafeRawBufferPointer) throws { try file.write(bytes) }

        /// Keeps the file and returns its `mxc:` URI. Durable when this returns.
        ///
        /// - Parameter pending: the media ID that was given out for it before; nil for one of its own.
        /// - Throws: `M_CANNOT_OVERWRITE_MEDIA` if the media ID got its content meanwhile, or its time is over.
        @discardableResult
        public func finish(
            contentType: String?, fileName: String?, by requester: Requester, pending: String? = nil
        ) async throws -> String {
            let now = service.surroundings.now()
            let (digest, size) = try await file.keep(at: now, on: service.disk)
            let mediaID = pending ?? service.surroundings.randomText(24)
            var write = Write()
            if let pending { write.completePendingMedia(pending, of: requester.nid, now: now) }
            write.insert(
                MediaRecord(
                    mediaID: mediaID, uploader: requester.nid, createdTS: now,
                    contentType: contentType.flatMap { $0.utf8.count <= 255 ? $0 : nil },
                    fileName: fileName.map { $0.shortened(to: 255) }, size: size, contentHash: digest))
            do { try await service.database.write(write) } catch DatabaseError.conflict where pending != nil {
                throw MediaService.hasContent
            }
            return "mxc://\(service.serverName)/\(mediaID)"
        }

        public func abandon() { file.abandon() }
    }

    public func beginUpload() throws -> Upload { try Upload(self) }

    // MARK: - Downloads

    /// A file that can be downloaded.
    public struct Download: Sendable {
        public let path: String
        public let size: Int64
        public let contentType: String?
        public let fileName: String?
        /// A name of the content that no other content has.
        public let tag: String
    }

    /// How a file is asked for.
    public struct Reference: Sendable {
        public var server: String
        public var mediaID: String
        /// How long the client is willing to wait for content that is still to come, in milliseconds.
        public var wait: Int64
        /// Whether it is asked for without an access token, as clients did before version 1.11 of the specification.
        public var isUnauthenticated: Bool

        public init(server: String, mediaID: String, wait: Int64 = 20_000, isUnauthenticated: Bool = false) {
            self.server = server
            self.mediaID = mediaID
            self.wait = wait
            self.isUnauthenticated = isUnauthenticated
        }
    }

    /// - Throws: `M_NOT_FOUND`, `M_NOT_YET_UPLOADED`.
    public func download(_ reference: Reference) async throws -> Download {
        let record = try await record(reference)
        return Download(
            path: store.path(of: record.contentHash), size: record.size, contentType: record.contentType,
            fileName: record.fileName, tag: Hex.encode(record.contentHash.prefix(16)))
    }

    /// A smaller picture of a picture.
    ///
    /// - Throws: `M_NOT_FOUND`, `M_NOT_YET_UPLOADED`, `M_INVALID_PARAM`, `M_TOO_LARGE`, or `M_UNKNOWN` (400) for what is no
    ///   picture.
    public func thumbnail(
        _ reference: Reference, width: Int64, height: Int64, crops: Bool, animates: Bool
    ) async throws -> Download {
        guard (1...100_000).contains(width), (1...100_000).contains(height) else {
            throw MatrixError.invalidParam("“width” and “height” must be positive, and not absurdly large.")
        }
        let record = try await record(reference)
        let thumbnail = try await thumbnails.thumbnail(
            of: record, width: Int(width), height: Int(height), crops ? .crop : .scale, animates: animates)
        return Download(
            path: store.path(of: thumbnail.hash), size: thumbnail.size, contentType: thumbnail.contentType,
            fileName: "thumbnail.\(thumbnail.contentType.dropFirst("image/".count))",
            tag: Hex.encode(thumbnail.hash.prefix(16)))
    }

    private func record(_ reference: Reference) async throws -> MediaRecord {
        guard Self.isMediaID(reference.mediaID) else { throw Self.none }
        guard reference.server == serverName.string else {
            // Nothing is fetched for those who don't say who they are.
            guard !reference.isUnauthenticated, let server = ServerName(reference.server) else { throw Self.none }
            return try await remote.record(reference.mediaID, of: server, wait: reference.wait)
        }
        guard reference.isUnauthenticated else { return try await record(of: reference.mediaID, wait: reference.wait) }
        // "Freeze" of the deprecated endpoints (Client-Server API, "Content repository", client behaviour): what is still to
        // come is newer than it, too.
        let record = try await database.media(reference.mediaID)
        guard let record, let freeze = settings.unauthenticatedBefore, record.createdTS < freeze else {
            throw Self.none
        }
        return record
    }
}
