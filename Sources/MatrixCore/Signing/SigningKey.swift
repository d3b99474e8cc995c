import Crypto

/// An Ed25519 key that signs for a server (Appendices, Signing JSON).
public struct SigningKey: Sendable {
    /// `ed25519:` and the version.
    public let keyID: String
    /// 32 bytes.
    public let publicKey: [UInt8]
    private let key: Curve25519.Signing.PrivateKey

    /// - Parameters:
    ///   - seed: 32 bytes.
    ///   - version: one or more of `A-Z a-z 0-9 _` (Server-Server API, Publishing Keys).
    /// - Returns: nil if either is not so.
    public init?(seed: [UInt8], version: String) {
        let isVersion =
            !version.isEmpty
            && version.utf8.allSatisfy { byte in
                switch byte {
                case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x5F: true
                default: false
                }
            }
        guard seed.count == 32, isVersion, let key = try? Curve25519.Signing.PrivateKey(rawRepresentation: seed) else {
            return nil
        }
        keyID = "ed25519:\(version)"
        self.key = key
        publicKey = Array(key.publicKey.rawRepresentation)
    }

    public var verifyKey: VerifyKey? { VerifyKey(keyID: keyID, publicKey: publicKey) }

    /// 64 bytes.
    public func sign(_ bytes: [UInt8]) -> [UInt8] {
        do {
            return Array(try key.signature(for: bytes))
        } catch {
            // Signing with a key that could be loaded fails only when memory runs out.
            preconditionFailure("Ed25519 signing failed: \(error)")
        }
    }

    /// `object` with our signature under `signatures.<server>.<keyID>`, other signatures and `unsigned` kept
    /// (Appendices, Signing Details).
    ///
    /// - Throws: ``CanonicalJSONError`` if `object` has no canonical encoding.
    public func sign(_ object: JSON, as server: ServerName) throws(CanonicalJSONError) -> JSON {
        var signed = object
        var signatures = object["signatures"] ?? [:]
        let signature = sign(try object.document().root.canonical(omitting: ["signatures", "unsigned"]))
        var own = signatures[server.string] ?? [:]
        own[keyID] = .string(Base64.encode(signature))
        signatures[server.string] = own
        signed["signatures"] = signatures
        return signed
    }
}

/// The public half of a server's Ed25519 key (Server-Server API, Publishing Keys).
public struct VerifyKey: Sendable, Hashable {
    /// `ed25519:` and the version.
    public let keyID: String
    /// 32 bytes.
    public let publicKey: [UInt8]
    /// The last moment, in milliseconds since 1970, for which the key may be used: the lesser of the server's `valid_until_ts` and seven
    /// days after it was fetched, or `expired_ts` of an old key. Nil if it is not limited.
    public let validUntil: Int64?

    /// Bytes of a key's ID; a longer one is nobody's.
    private static let longestID = 255

    /// Nil for another algorithm or a key of the wrong length.
    public init?(keyID: String, publicKey: [UInt8], validUntil: Int64? = nil) {
        guard keyID.utf8.starts(with: "ed25519:".utf8), keyID.utf8.count <= Self.longestID, publicKey.count == 32 else {
            return nil
        }
        self.keyID = keyID
        self.publicKey = publicKey
        self.validUntil = validUntil
    }

    public static func == (a: Self, b: Self) -> Bool {
        a.keyID.hasSameBytes(as: b.keyID) && a.publicKey == b.publicKey && a.validUntil == b.validUntil
    }

    public func hash(into hasher: inout Hasher) {
        keyID.hashBytes(into: &hasher)
        hasher.combine(publicKey)
    }

    public func isValidSignature(_ signature: [UInt8], of bytes: [UInt8]) -> Bool {
        guard signature.count == 64, let key = try? Curve25519.Signing.PublicKey(rawRepresentation: publicKey) else {
            return false
        }
        return key.isValidSignature(signature, for: bytes)
    }

    /// Room Version 5, Signing key validity period: the key has to be valid when the event says that it was sent. Versions
    /// before 5 don't ask.
    public func isUsable(for event: Event) -> Bool {
        guard event.version.rules.enforcesKeyValidity, let validUntil else { return true }
        return event.originServerTS <= validUntil
    }

    /// What `validUntil` has to be for a key fetched at `now` (Room Version 5, Signing key validity period): a server that
    /// claims a later date could never revoke a stolen key.
    public static func validity(validUntilTS: Int64, fetchedAt now: Int64) -> Int64 {
        let sevenDays: Int64 = 7 * 24 * 3_600 * 1_000
        let (limit, overflow) = now.addingReportingOverflow(sevenDays)
        return overflow ? validUntilTS : min(validUntilTS, limit)
    }
}

extension JSONView {
    /// Whether `server` has signed this object with `key` (Appendices, Checking for a Signature).
    public func isSigned(by server: ServerName, with key: VerifyKey) -> Bool {
        guard let text = self["signatures"]?[server.string]?[key.keyID]?.string, let signature = Base64.decode(text),
            let bytes = try? canonical(omitting: ["signatures", "unsigned"])
        else { return false }
        return key.isValidSignature(signature, of: bytes)
    }
}
