import Database
import Logging

/// Removes files of other servers: they can be had again. By order, and by themselves once they have been kept for as long as
/// configured; one node at a time does that, under a lease.
public final class RemoteMediaPurging: Sendable {
    private let database: Database
    private let store: BlobStore
    private let disk: BlockingPool
    private let surroundings: Surroundings
    private let node: String
    /// Milliseconds; nil: for ever.
    private let keepFor: Int64?
    private let logger: Logger
    private let looks: PeriodicWork

    /// How often it is looked for what is old, in milliseconds.
    static let interval: Int64 = 3_600_000
    /// What has come within this time stays: somebody may be about to name the same content.
    private static let grace: Int64 = 3_600_000
    private static let batch = 200

    init(
        database: Database, store: BlobStore, disk: BlockingPool, surroundings: Surroundings, node: String,
        keepFor: Int64?, logger: Logger
    ) {
        self.database = database
        self.store = store
        self.disk = disk
        self.surroundings = surroundings
        self.node = node
        self.keepFor = keepFor
        self.logger = logger
        looks = PeriodicWork(surroundings, every: Self.interval)
    }

    /// What was removed.
    public struct Summary: Sendable, Hashable {
        public var files = 0
        /// That were freed on the disk: content that is also somebody's here stays there.
        public var bytes: Int64 = 0
    }

    func start() { if keepFor != nil { looks.start { [weak self] in await self?.look() } } }

    func stop() { looks.stop() }

    private func look() async {
        guard let keepFor else { return }
        let now = surroundings.now()
        do {
            guard
                try await database.lease("remote_media", holder: node, now: now, duration: Self.interval / 2) != nil
            else { return }
            let summary = try await purge(fetchedBefore: now - keepFor)
            guard summary.files > 0 else { return }
            logger.info(
                "removed old files of other servers",
                metadata: ["files": "\(summary.files)", "bytes": "\(summary.bytes)"])
        } catch {
            logger.error(
                "removing old files of other servers failed; it is tried again", metadata: ["reason": "\(error)"])
        }
    }

    /// Removes the files that were fetched before a time, and their thumbnails; not those of the last hour.
    ///
    /// - Parameter time: in milliseconds since 1970.
    public func purge(fetchedBefore time: Int64) async throws -> Summary {
        let recent = surroundings.now() - Self.grace
        var summary = Summary()
        while true {
            let old = try await database.remoteMedia(fetchedBefore: min(time, recent), limit: Self.batch)
            if old.isEmpty { return summary }
            var write = Write()
            for file in old { write.dropRemoteMedia(file) }
            try await database.write(write)
            summary.files += old.count
            for hash in Set(old.map(\.hash)) { summary.bytes += try await remove(hash, unlessKeptSince: recent) }
        }
    }

    /// Removes content and its thumbnails if nobody names them any more.
    private func remove(_ hash: [UInt8], unlessKeptSince recent: Int64) async throws -> Int64 {
        if try await database.isContentNamed(hash) { return 0 }
        let thumbnails = try await database.thumbnailHashes(of: hash)
        var write = Write()
        write.dropThumbnails(of: hash)
        try await database.write(write)
        var bytes: Int64 = 0
        for content in [hash] + thumbnails where try await !database.isContentNamed(content) {
            bytes += try await disk.run { [store] in store.remove(content, unlessKeptSince: recent) ?? 0 }
        }
        return bytes
    }
}
