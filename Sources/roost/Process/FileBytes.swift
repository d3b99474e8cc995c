import Glibc

/// Reads and writes small files whole.
enum FileBytes {
    struct Failure: Error {
        let reason: String
    }

    /// - Parameter limit: more bytes than this are a mistake, such as naming a device.
    static func read(_ path: String, limit: Int) throws(Failure) -> [UInt8] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw Failure(reason: reason()) }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16 * 1024)
        while true {
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            guard count >= 0 else { throw Failure(reason: reason()) }
            guard count > 0 else { return bytes }
            bytes += chunk[..<count]
            guard bytes.count <= limit else { throw Failure(reason: "it is larger than \(limit) bytes") }
        }
    }

    private static func reason() -> String {
        errno == ENOENT ? "there is no such file" : String(cString: strerror(errno)).lowercased()
    }
}
