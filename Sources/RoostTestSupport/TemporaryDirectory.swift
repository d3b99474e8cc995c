#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// A directory that is removed, with all in it, when the last reference to it goes.
public final class TemporaryDirectory: Sendable {
    public let path: String

    public init() {
        var template = Array("\(Self.base)/roost-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { preconditionFailure("no temporary directory could be made: \(errno)") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private static var base: String { getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp" }

    deinit { Self.removeTree(path) }

    /// Removes a file or a directory with all in it; it need not be there.
    public static func removeTree(_ path: String) {
        if let stream = opendir(path) {
            while let entry = readdir(stream) {
                let name = withUnsafeBytes(of: entry.pointee.d_name) {
                    String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
                }
                if name != ".", name != ".." { removeTree("\(path)/\(name)") }
            }
            closedir(stream)
        }
        remove(path)
    }
}
