#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// What the services do with files. Failures say which file and why.
enum Files {
    struct Failure: Error, CustomStringConvertible {
        let description: String

        init(_ what: String, _ path: String) {
            description = "\(path) can't be \(what): \(String(cString: strerror(errno)))."
        }
    }

    static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    /// Makes a directory and those above it.
    static func makeDirectories(_ path: String) throws {
        var made = ""
        for part in path.split(separator: "/", omittingEmptySubsequences: false) {
            made += made.isEmpty && !part.isEmpty ? String(part) : "/" + part
            if part.isEmpty || part == "." { continue }
            if mkdir(made, 0o700) != 0, errno != EEXIST { throw Failure("made", made) }
        }
    }

    /// The names in a directory; none if there is no such directory.
    static func names(in directory: String) -> [String] {
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

    /// Makes the entries of a directory durable.
    static func syncDirectory(_ directory: String) throws {
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY)
        guard descriptor >= 0 else { throw Failure("opened", directory) }
        defer { close(descriptor) }
        if fsync(descriptor) != 0 { throw Failure("synced", directory) }
    }

    static func move(_ path: String, to target: String) throws {
        if rename(path, target) != 0 { throw Failure("moved to \(target)", path) }
        try syncDirectory(parent(of: target))
    }

    static func parent(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// Up to `limit` bytes of a small file; nil if it can't be read.
    static func read(_ path: String, limit: Int = 1 << 20) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: limit)
        var count = 0
        while count < limit {
            let got = bytes.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress! + count, limit - count) }
            if got < 0 { return nil }
            if got == 0 { break }
            count += got
        }
        return Array(bytes[..<count])
    }

    /// Writes a new file, readable by its owner alone, durably.
    static func write(_ bytes: [UInt8], to path: String) throws {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL, 0o600)
        guard descriptor >= 0 else { throw Failure("made", path) }
        defer { close(descriptor) }
        guard Glibc.write(descriptor, bytes, bytes.count) == bytes.count, fsync(descriptor) == 0 else {
            throw Failure("written", path)
        }
        try syncDirectory(parent(of: path))
    }

    /// Copies a file durably.
    static func copy(_ path: String, to target: String) throws {
        let source = open(path, O_RDONLY)
        guard source >= 0 else { throw Failure("opened", path) }
        defer { close(source) }
        let copy = open(target, O_WRONLY | O_CREAT | O_EXCL, 0o600)
        guard copy >= 0 else { throw Failure("made", target) }
        defer { close(copy) }
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        while true {
            let count = Glibc.read(source, &buffer, buffer.count)
            if count == 0 { break }
            if count < 0 { throw Failure("read", path) }
            var written = 0
            while written < count {
                let more = buffer.withUnsafeBytes { Glibc.write(copy, $0.baseAddress! + written, count - written) }
                if more < 0 { throw Failure("written", target) }
                written += more
            }
        }
        if fsync(copy) != 0 { throw Failure("synced", target) }
    }

    /// Gives a file that never changes a second name, or copies it where that is not possible. The target is whole or not there.
    ///
    /// - Parameter partial: where a copy may be while it is made.
    /// - Returns: false if there is no such file.
    static func share(_ path: String, as target: String, by partial: String) throws -> Bool {
        if link(path, target) == 0 || errno == EEXIST { return true }
        if errno == ENOENT, !exists(path) { return false }
        remove(partial)
        try copy(path, to: partial)
        try move(partial, to: target)
        return true
    }

    /// Whether there is a file with something in it.
    static func hasContent(_ path: String) -> Bool {
        var facts = stat()
        return stat(path, &facts) == 0 && facts.st_size > 0
    }

    static func remove(_ path: String) { unlink(path) }
}
