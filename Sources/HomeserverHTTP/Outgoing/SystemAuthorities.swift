#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// The certificate authorities of the machine.
enum SystemAuthorities {
    /// The file that `SSL_CERT_FILE` names, as other programs take it; nil where the system's own place counts.
    static let file: String? = getenv("SSL_CERT_FILE").map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 }
}
