import Glibc
import HomeserverHTTP

/// The directory of a server's data: one process at a time works in it.
final class DataDirectory: Sendable {
    private let descriptor: CInt

    /// The socket through which the command line speaks to the running server.
    static func socketPath(in directory: String) -> String { "\(directory)/roost.sock" }

    /// Makes the directory if there is none and takes its lock. The lock goes with the process, however that ends.
    ///
    /// - Throws: ``Failure`` when another process has the lock or the directory can't be written.
    init(_ path: String) throws(Failure) {
        try Self.makeDirectories(path)
        let lock = "\(path)/roost.lock"
        descriptor = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw Failure("can't write in the data directory \(path): \(String(cString: strerror(errno)))")
        }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            let holder = (try? FileBytes.read(lock, limit: 64)).map { String(decoding: $0, as: UTF8.self) } ?? ""
            close(descriptor)
            throw Failure(
                "another Roost\(holder.isEmpty ? "" : ", process \(holder),") already works in \(path); stop it first")
        }
        let process = Array(String(getpid()).utf8)
        ftruncate(descriptor, 0)
        pwrite(descriptor, process, process.count, 0)
    }

    deinit { close(descriptor) }

    private static func makeDirectories(_ path: String) throws(Failure) {
        if mkdir(path, 0o700) == 0 || errno == EEXIST { return }
        let parent = Paths.directory(of: path)
        guard errno == ENOENT, !parent.isEmpty, parent != path else {
            throw Failure("can't make the data directory \(path): \(String(cString: strerror(errno)))")
        }
        try makeDirectories(parent)
        guard mkdir(path, 0o700) == 0 || errno == EEXIST else {
            throw Failure("can't make the data directory \(path): \(String(cString: strerror(errno)))")
        }
    }
}
