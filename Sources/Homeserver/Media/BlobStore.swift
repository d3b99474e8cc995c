import Synchronization

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Files in a directory, each named by the SHA-256 of its content, in folders by its first two digits. What is there is
/// whole: a file is written under another name, synced, and then moved to its place.
struct BlobStore: Sendable {
    let directory: String

    init(directory: String) throws {
        self.directory = directory
        try Files.makeDirectories("\(directory)/incoming")
    }

    /// Removes what a crash has left half-written; only for the server itself, before it takes anything. A backup that runs beside
    /// it must not.
    ///
    /// - Parameter age: seconds since somebody wrote a file: other nodes may be taking theirs.
    func clear(olderThan age: Int) {
        let limit = time(nil) - age
        for name in Files.names(in: "\(directory)/incoming") {
            let path = "\(directory)/incoming/\(name)"
            var facts = stat()
            if stat(path, &facts) == 0, facts.st_mtim.tv_sec <= limit { unlink(path) }
        }
    }

    /// Takes over content from another store: by another name for the same file where that is possible, or by a copy.
    ///
    /// - Returns: false if it isn't there. The folder's entries are not durable yet.
    func take(_ hash: [UInt8], from other: BlobStore) throws -> Bool {
        let place = path(of: hash)
        try Files.makeDirectories(Files.parent(of: place))
        return try Files.share(
            other.path(of: hash), as: place, by: "\(directory)/incoming/\(Hex.encode(hash)).copy")
    }

    /// Where the content with this hash lies.
    func path(of hash: [UInt8]) -> String {
        let name = Hex.encode(hash)
        return "\(directory)/\(name.prefix(2))/\(name)"
    }

    func contains(_ hash: [UInt8]) -> Bool { Files.exists(path(of: hash)) }

    /// A file that is being written.
    final class Incoming: @unchecked Sendable {
        let path: String
        private var descriptor: Int32

        fileprivate init(path: String) throws {
            self.path = path
            descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL, 0o600)
            if descriptor < 0 { throw BlobStore.failure("make", path) }
        }

        func write(_ bytes: UnsafeRawBufferPointer) throws {
            var rest = bytes
            while !rest.isEmpty {
                let written = Glibc.write(descriptor, rest.baseAddress, rest.count)
                if written < 0 {
                    if errno == EINTR { continue }
                    throw BlobStore.failure("write", path)
                }
                rest = UnsafeRawBufferPointer(rebasing: rest[written...])
            }
        }

        fileprivate func finish() throws {
            defer { abandonDescriptor() }
            if fsync(descriptor) != 0 { throw BlobStore.failure("sync", path) }
        }

        /// Removes the file.
        func abandon() {
            abandonDescriptor()
            unlink(path)
        }

        private func abandonDescriptor() {
            if descriptor >= 0 { close(descriptor) }
            descriptor = -1
        }

        deinit { abandonDescriptor() }
    }

    func begin(_ name: String) throws -> Incoming { try Incoming(path: "\(directory)/incoming/\(name)") }

    /// Gives a file its place. It is durable when this returns.
    ///
    /// - Parameter now: when it came, in milliseconds since 1970; also for content that is here already, which is not removed soon.
    func keep(_ file: Incoming, as hash: [UInt8], at now: Int64) throws {
        try file.finish()
        if Self.removing.withLock({ _ in touch(path(of: hash), now) }) {
            file.abandon()
            return
        }
        _ = touch(file.path, now)
        let place = path(of: hash)
        let folder = Files.parent(of: place)
        if !Files.exists(folder) {
            try Files.makeDirectories(folder)
            try Files.syncDirectory(directory)
        }
        if rename(file.path, place) != 0 { throw Self.failure("move", file.path) }
        try Files.syncDirectory(folder)
    }

    /// Held while it is decided whether a file stays: nobody takes it for one that is here while it goes.
    private static let removing = Mutex(())

    /// - Returns: whether there is such a file.
    private func touch(_ path: String, _ now: Int64) -> Bool {
        let time = timespec(tv_sec: Int(now / 1_000), tv_nsec: Int(now % 1_000) * 1_000_000)
        return utimensat(AT_FDCWD, path, [time, time], 0) == 0
    }

    /// Removes the content with a hash, unless somebody has brought it since a time.
    ///
    /// - Returns: the bytes that were freed; nil if nothing was removed.
    func remove(_ hash: [UInt8], unlessKeptSince time: Int64) -> Int64? {
        Self.removing.withLock { _ in
            var facts = stat()
            let place = path(of: hash)
            guard stat(place, &facts) == 0, Int64(facts.st_mtim.tv_sec) * 1_000 < time, unlink(place) == 0 else {
                return nil
            }
            return Int64(facts.st_size)
        }
    }

    fileprivate static func failure(_ what: String, _ path: String) -> MatrixError {
        MatrixError(.unknown, "The server could not \(what) a file: \(String(cString: strerror(errno))).")
    }
}
