import Glibc
import Homeserver

/// The lock of a file: one process at a time has it. It goes with the process, however that ends.
final class ProcessLock: Sendable {
    private let descriptor: CInt

    /// - Parameters:
    ///   - path: the file, which is made if there is none. It holds the number of the process that has the lock.
    ///   - what: what only one process may work with.
    init(_ path: String, of what: String) throws(Failure) {
        descriptor = try Self.take(path, of: what)
    }

    private static func take(_ path: String, of what: String) throws(Failure) -> CInt {
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw Failure("can't write \(path): \(String(cString: strerror(errno)))") }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            let holder = (try? FileBytes.read(path, limit: 64)).map { String(decoding: $0, as: UTF8.self) } ?? ""
            close(descriptor)
            throw Failure(
                "another Roost\(holder.isEmpty ? "" : ", process \(holder),") already works with \(what); stop it first"
            )
        }
        let process = Array(String(getpid()).utf8)
        ftruncate(descriptor, 0)
        pwrite(descriptor, process, process.count, 0)
        return descriptor
    }

    deinit { close(descriptor) }

    /// That of a database, which may be in a directory of its own: two processes that write it would give positions out twice. A lock
    /// of the file itself would meet those that SQLite takes and gives back. Several nodes may share PostgreSQL.
    static func database(_ location: Configuration.DatabaseLocation) throws(Failure) -> ProcessLock? {
        guard case .sqlite(let path) = location else { return nil }
        try DataDirectory.make(Paths.directory(of: path))
        let resolved = realpath(path, nil)
        defer { free(resolved) }
        let file = resolved.map { String(cString: $0) } ?? path
        do { return try ProcessLock("\(file).owner", of: "the database \(path)") } catch {
            throw Failure(
                error.message + "; a command that is to reach it needs the same data_path (--data) as the server")
        }
    }
}
