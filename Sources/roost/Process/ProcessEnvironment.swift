import Glibc

/// The environment variables of this process.
enum ProcessEnvironment {
    /// Read from the kernel: the C library's `environ` is a global variable that anyone may change meanwhile.
    static func variables() -> [String: String] {
        let bytes = (try? FileBytes.read("/proc/self/environ", limit: 16 * 1024 * 1024)) ?? []
        var variables: [String: String] = [:]
        for entry in bytes.split(separator: 0) {
            guard let equals = entry.firstIndex(of: UInt8(ascii: "=")) else { continue }
            variables[String(decoding: entry[..<equals], as: UTF8.self)] = String(
                decoding: entry[(equals + 1)...], as: UTF8.self)
        }
        return variables
    }
}
