import CArgon2
import CCrypt
import MatrixCore

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Password hashes: argon2id in its usual encoded form, `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.
struct PasswordHash: Sendable {
    /// OWASP's recommendation for argon2id: 19 MiB, two passes, one lane. Some 30 ms of one core.
    static let memoryKiB: UInt32 = 19_456
    static let passes: UInt32 = 2
    static let lanes: UInt32 = 1
    private static let hashLength = 32

    /// - Parameter salt: 16 random bytes.
    static func make(_ password: String, salt: [UInt8]) throws -> String {
        let password = Array(password.utf8)
        let length = argon2_encodedlen(passes, memoryKiB, lanes, UInt32(salt.count), UInt32(hashLength), Argon2_id)
        var encoded = [CChar](repeating: 0, count: length)
        let code = argon2id_hash_encoded(
            passes, memoryKiB, lanes, password, password.count, salt, salt.count, hashLength, &encoded, length)
        guard code == ARGON2_OK.rawValue else {
            throw MatrixError(
                .unknown, "The password could not be hashed: \(String(cString: argon2_error_message(code))).")
        }
        return String(decoding: encoded.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// A hash that no password is known for: its bytes are random, and weren't computed.
    ///
    /// - Parameters:
    ///   - salt: 16 random bytes.
    ///   - hash: 32 random bytes.
    static func decoy(salt: [UInt8], hash: [UInt8]) -> String {
        "$argon2id$v=19$m=\(memoryKiB),t=\(passes),p=\(lanes)$\(Base64.encode(salt))$\(Base64.encode(hash))"
    }

    /// Whether a hash is of the kind that new ones are.
    static func isCurrent(_ encoded: String) -> Bool { encoded.hasPrefix("$argon2id$") }

    /// Whether the password is the one that was hashed, by us or (bcrypt) by another server from which the account came. Takes
    /// the same time whatever the password is.
    static func verify(_ password: String, _ encoded: String) -> Bool {
        let bytes = Array(password.utf8)
        if isCurrent(encoded) { return argon2id_verify(encoded, bytes, bytes.count) == ARGON2_OK.rawValue }
        return isBcrypt(encoded) && !bytes.contains(0) && verifyByCrypt(password, encoded)
    }

    private static func isBcrypt(_ encoded: String) -> Bool {
        encoded.utf8.count == 60 && ["$2a$", "$2b$", "$2y$"].contains { encoded.hasPrefix($0) }
    }

    private static func verifyByCrypt(_ password: String, _ encoded: String) -> Bool {
        // It is 32 KB, too much for the stack of a thread of ours.
        let space = UnsafeMutablePointer<crypt_data>.allocate(capacity: 1)
        defer { space.deallocate() }
        memset(space, 0, MemoryLayout<crypt_data>.size)
        guard let hash = crypt_r(password, encoded, space) else { return false }
        let made = UnsafeBufferPointer(start: hash, count: strlen(hash)), wanted = Array(encoded.utf8)
        guard made.count == wanted.count else { return false }
        // All bytes are compared, whatever the first ones are.
        return zip(made, wanted).reduce(UInt8(0)) { $0 | (UInt8(bitPattern: $1.0) ^ $1.1) } == 0
    }
}
