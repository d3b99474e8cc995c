import Crypto
import Database
import MatrixCore

/// Uploads and downloads (Client-Server API, "Content repository").
public final class MediaService: Sendable {
    let database: Database
    let serverName: ServerName
    let surroundings: Surroundings
    let store: BlobStore
    /// The most bytes of an upload.
    public let largestUpload: Int
    let disk: BlockingPool

    init(
        database: Database, serverName: ServerName, surroundings: Surroundings, store: BlobStore, largestUpload: Int,
        disk: BlockingPool
    ) {
        self.database = database
        self.serverName = serverName
        self.surroundings = surroundings
        self.store = store
        self.largestUpload = largestUpload
        self.disk = disk
    }

    /// An upload under way: bytes go to the disk as they arrive and are hashed on the way.
    public final class Upload: @unchecked Sendable {
        // Used by one request's task, one call after another.
        private let file: BlobStore.Incoming
        private var hash = SHA256()
        private var size = 0
        private let service: MediaService

        fileprivate init(_ service: MediaService) throws {
            self.service = service
            file = try service.store.begin(service.surroundings.randomText(24))
        }

        /// - Throws: `M_TOO_LARGE` as soon as it is more than allowed.
        public func write(_ bytes: UnsafeRawBufferPointer) throws {
            size += bytes.count
            guard size <= service.largestUpload else {
                throw MatrixError.tooLarge("Files of up to \(service.largestUpload) bytes may be uploaded here.")
            }
            hash.update(bufferPointer: bytes)
            try file.write(bytes)
        }

        /// Keeps the file and returns its `mxc:` URI. Durable when this returns.
        public func finish(contentType: String?, fileName: String?, by requester: Requester) async throws -> String {
            let digest = Array(hash.finalize())
            let store = service.store
            try await service.disk.run { [file] in try store.keep(file, as: digest) }
            let mediaID = service.surroundings.randomText(24)
            var write = Write()
            write.insert(
                MediaRecord(
                    mediaID: mediaID, uploader: requester.nid, createdTS: service.surroundings.now(),
                    contentType: contentType, fileName: fileName, size: Int64(size), contentHash: digest))
            try await service.database.write(write)
            return "mxc://\(service.serverName)/\(mediaID)"
        }

        public func abandon() { file.abandon() }
    }

    public func beginUpload() throws -> Upload { try Upload(self) }

    /// A file that can be downloaded.
    public struct Download: Sendable {
        public let path: String
        public let size: Int64
        public let contentType: String?
        public let fileName: String?
    }

    /// - Throws: `M_NOT_FOUND`.
    public func download(server: String, mediaID: String) async throws -> Download {
        let none = MatrixError.notFound("There is no such file.")
        // Media IDs consist of letters, digits, - and _ (Client-Server API, "Matrix Content (mxc://) URIs").
        guard server == serverName.string, let record = try await database.media(mediaID) else { throw none }
        return Download(
            path: store.path(of: record.contentHash), size: record.size, contentType: record.contentType,
            fileName: record.fileName)
    }
}
