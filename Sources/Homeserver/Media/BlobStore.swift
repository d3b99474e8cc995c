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
        try Self.makeDirectories("\(directory)/incoming")
        // What a crash has left half-written.
        for name in Self.names(in: "\(directory)/incoming") { unlink("\(directory)/incoming/\(name)") }
    }

    /// Where the content with this hash lies.
    func path(of hash: [UInt8]) -> String {
        let name = Hex.encode(hash)
        return "\(directory)/\(name.prefix(2))/\(name)"
    }

    func contains(_ hash: [UInt8]) -> Bool { access(path(of: hash), F_OK) == 0 }

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
    func keep(_ file: Incoming, as hash: [UInt8]) throws {
        try file.finish()
        if contains(hash) {
            file.abandon()
            return
        }
        let place = path(of: hash)
        let folder = String(place[..<(place.lastIndex(of: "/") ?? place.endIndex)])
        try Self.makeDirectories(folder)
        if rename(file.path, place) != 0 { throw Self.failure("move", file.path) }
        try Self.sync(folder)
    }

    fileprivate static func failure(_ what: String, _ path: String) -> MatrixError {
        MatrixError(.unknown, "The server could not \(what) a file: \(String(cString: strerror(errno))).")
    }

    static func makeDirectories(_ path: String) throws {
        var made = ""
        for part in path.split(separator: "/", omittingEmptySubsequences: false) {
            made += made.isEmpty && !part.isEmpty ? String(part) : "/" + part
            if part.isEmpty || part == "." { continue }
            if mkdir(made, 0o700) != 0, errno != EEXIST { throw failure("make the directory", made) }
        }
    }

    /// A directory's entries are durable once the directory is synced.
    private static func sync(_ directory: String) throws {
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY)
        guard descriptor >= 0 else { throw failure("open", directory) }
        defer { close(descriptor) }
        if fsync(descriptor) != 0 { throw failure("sync", directory) }
    }

    private static func names(in directory: String) -> [String] {
        guard let stream = opendir(directory) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }
}
