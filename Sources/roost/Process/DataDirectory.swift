import Glibc

/// The directory of a server's data: one process at a time works in it.
struct DataDirectory {
    private let lock: ProcessLock

    /// The socket through which the command line speaks to the running server.
    static func socketPath(in directory: String) -> String { "\(directory)/roost.sock" }

    /// Makes the directory if there is none and takes its lock.
    ///
    /// - Throws: ``Failure`` when another process has the lock or the directory can't be written.
    init(_ path: String) throws(Failure) {
        try Self.make(path)
        lock = try ProcessLock("\(path)/roost.lock", of: "the data directory \(path)")
    }

    /// Makes a directory and those above it.
    static func make(_ path: String) throws(Failure) {
        if path.isEmpty || mkdir(path, 0o700) == 0 || errno == EEXIST { return }
        let parent = Paths.directory(of: path)
        guard errno == ENOENT, !parent.isEmpty, parent != path else {
            throw Failure("can't make the directory \(path): \(String(cString: strerror(errno)))")
        }
        try make(parent)
        guard mkdir(path, 0o700) == 0 || errno == EEXIST else {
            throw Failure("can't make the directory \(path): \(String(cString: strerror(errno)))")
        }
    }
}
