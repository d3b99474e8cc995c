import Crypto
import Database
import MatrixCore
import Synchronization

/// Smaller pictures of uploaded ones (Client-Server API, "Thumbnails"): made when they are asked for first, and kept.
final class ThumbnailService: Sendable {
    private let database: Database
    private let surroundings: Surroundings
    private let store: BlobStore
    /// Two pictures are decoded at a time, which bounds the memory that strangers' pictures may take.
    private let pictures: BlockingPool

    /// Thumbnails that are being made, so that many who ask for one at the same time wait for one. The lock protects the table;
    /// nothing is awaited while it is held.
    private let underWay = Mutex<[ThumbnailKey: Task<ThumbnailRecord, any Error>]>([:])

    init(database: Database, surroundings: Surroundings, store: BlobStore, pictures: BlockingPool) {
        self.database = database
        self.surroundings = surroundings
        self.store = store
        self.pictures = pictures
    }

    private static let impossible = MatrixError(
        .unknown, "This is not a picture of which the server can make a smaller one.", status: 400)

    /// - Parameter animates: whether the thumbnail of a moving picture moves.
    /// - Returns: a thumbnail, or the content itself where it is no larger than that, or no thumbnail is as large as is
    ///   asked for.
    /// - Throws: `M_TOO_LARGE`, or `M_UNKNOWN` (400) for what is no picture.
    func thumbnail(
        of media: MediaRecord, width: Int, height: Int, _ method: ThumbnailSize.Method, animates: Bool
    ) async throws -> ThumbnailRecord {
        let path = store.path(of: media.contentHash)
        do {
            let header = try await pictures.run { try PictureDecoding.header(of: path, size: media.size) }
            let size = ThumbnailSize(atLeast: width, height, method)
            if size?.holds(header) ?? true, !header.isAnimated || animates {
                return ThumbnailRecord(
                    contentType: header.format.contentType, size: media.size, hash: media.contentHash)
            }
            let key = ThumbnailKey(
                contentHash: media.contentHash, width: size?.width ?? 0, height: size?.height ?? 0,
                crops: size?.method == .crop, animates: animates && header.isAnimated)
            switch try await database.thumbnail(key) {
            case .made(let known) where store.contains(known.hash): return known
            case .impossible: throw Self.impossible
            // A backup leaves out what can be made again.
            case .made, nil: return try await make(key, header, size)
            }
        } catch let failure as PictureDecoding.Failure {
            switch failure {
            case .notAPicture: throw Self.impossible
            case .tooLarge:
                throw MatrixError.tooLarge("The picture is too large for the server to make a smaller one of it.")
            case .unavailable:
                throw MatrixError(
                    .unknown, "This server makes no thumbnails: libvips (libvips.so.42) is missing there.", status: 400)
            }
        }
    }

    private func make(_ key: ThumbnailKey, _ header: PictureHeader, _ size: ThumbnailSize?) async throws
        -> ThumbnailRecord
    {
        let task = underWay.withLock { tasks in
            if let task = tasks[key] { return task }
            let task = Task {
                defer { underWay.withLock { $0[key] = nil } }
                return try await carryOut(key, header, size)
            }
            tasks[key] = task
            return task
        }
        return try await task.value
    }

    private func carryOut(
        _ key: ThumbnailKey, _ header: PictureHeader, _ size: ThumbnailSize?
    ) async throws -> ThumbnailRecord {
        let (store, path) = (store, store.path(of: key.contentHash))
        let (name, now) = (surroundings.randomText(24), surroundings.now())
        var write = Write()
        do {
            let record = try await pictures.run {
                let picture = try PictureDecoding.thumbnail(of: path, header, size: size, animates: key.animates)
                let hash = Hashing.sha256(picture.bytes)
                let file = try store.begin(name)
                do {
                    try picture.bytes.withUnsafeBytes { try file.write($0) }
                    try store.keep(file, as: hash, at: now)
                } catch {
                    file.abandon()
                    throw error
                }
                return ThumbnailRecord(
                    contentType: picture.contentType, size: Int64(picture.bytes.count), hash: hash)
            }
            write.putThumbnail(key, .made(record))
            try await database.write(write)
            return record
        } catch PictureDecoding.Failure.notAPicture {
            // Its header looks like a picture's; nobody needs to try again.
            write.putThumbnail(key, .impossible)
            try await database.write(write)
            throw PictureDecoding.Failure.notAPicture
        }
    }
}
