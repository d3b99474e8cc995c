import CArgon2

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

    /// Whether the password is the one that was hashed. Takes the same time whatever the password is.
    static func verify(_ password: String, _ encoded: String) -> Bool {
        let password = Array(password.utf8)
        return argon2id_verify(encoded, password, password.count) == ARGON2_OK.rawValue
    }
}
