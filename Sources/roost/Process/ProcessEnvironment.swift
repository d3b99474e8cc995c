@preconcurrency import Glibc

/// The environment variables of this process.
enum ProcessEnvironment {
    /// Nothing here changes them, so the C library's table may be read at any time. (`/proc/self/environ` can't be read by a program
    /// that was given a capability, such as that to listen on low ports.)
    static func variables() -> [String: String] {
        var variables: [String: String] = [:]
        var place = environ
        while let entry = place.pointee {
            let bytes = UnsafeRawBufferPointer(start: entry, count: strlen(entry))
            if let equals = bytes.firstIndex(of: UInt8(ascii: "=")) {
                variables[String(decoding: bytes[..<equals], as: UTF8.self)] = String(
                    decoding: bytes[(equals + 1)...], as: UTF8.self)
            }
            place += 1
        }
        return variables
    }
}
