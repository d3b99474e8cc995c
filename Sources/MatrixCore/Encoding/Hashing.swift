import Crypto

/// The hash functions of the protocol.
public enum Hashing {
    /// SHA-256: content hashes, reference hashes, event IDs (Server-Server API, Signing Events).
    public static func sha256(_ bytes: [UInt8]) -> [UInt8] {
        var hash = SHA256()
        bytes.withUnsafeBytes { hash.update(bufferPointer: $0) }
        return Array(hash.finalize())
    }

    /// SHA-1: only for the order of events in state resolution version 1 (Room Version 1, State resolution).
    static func sha1(_ bytes: some Sequence<UInt8>) -> [UInt8] {
        var hash = Insecure.SHA1()
        Array(bytes).withUnsafeBytes { hash.update(bufferPointer: $0) }
        return Array(hash.finalize())
    }
}
