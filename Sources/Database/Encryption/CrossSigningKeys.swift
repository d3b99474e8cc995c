/// What a cross-signing key is for (Client-Server API, "Cross-signing"). The raw values are stored.
public enum CrossSigningUsage: Int64, Sendable, CaseIterable {
    case master = 0
    case selfSigning = 1
    case userSigning = 2
}

/// A cross-signing key without its signatures.
public struct StoredCrossSigningKey: Sendable {
    public let user: UserNID
    public let usage: CrossSigningUsage
    /// Unpadded Base64, as the key's ID has it.
    public let publicKey: String
    /// Canonical JSON without `signatures`.
    public let json: [UInt8]

    public init(user: UserNID, usage: CrossSigningUsage, publicKey: String, json: [UInt8]) {
        self.user = user
        self.usage = usage
        self.publicKey = publicKey
        self.json = json
    }
}

/// A signature on a user's device or cross-signing key. All that are stored have been verified.
public struct KeySignature: Sendable {
    /// Whose key is signed.
    public let user: UserNID
    /// The device's ID, or the cross-signing key's public key.
    public let keyID: String
    public let signer: UserNID
    /// `ed25519:` and the device's ID or the public key.
    public let signerKeyID: String
    public let signature: String

    public init(user: UserNID, keyID: String, signer: UserNID, signerKeyID: String, signature: String) {
        self.user = user
        self.keyID = keyID
        self.signer = signer
        self.signerKeyID = signerKeyID
        self.signature = signature
    }
}

extension Database {
    private static let keys = Statement("SELECT usage, public_key, json FROM cross_signing_keys WHERE user_nid = $1")

    /// The cross-signing keys of the users.
    public func crossSigningKeys(of users: [UserNID], _ reader: any Reader) async throws -> [StoredCrossSigningKey] {
        try await reader.queryEach(Self.keys, users.map { [$0.value] }) { index, row in
            try Self.crossSigningKey(
                of: users[index], usage: row.integer(0), publicKey: row.text(1), row.blob(2))
        }
    }

    private static func crossSigningKey(
        of user: UserNID, usage: Int64, publicKey: String, _ json: [UInt8]
    ) throws -> StoredCrossSigningKey {
        guard let usage = CrossSigningUsage(rawValue: usage) else {
            throw DatabaseError.corrupt("a cross-signing key of user \(user) is for nothing known")
        }
        return StoredCrossSigningKey(user: user, usage: usage, publicKey: publicKey, json: json)
    }

    private static let signatures = Statement(
        """
        SELECT key_id, signer_nid, signer_key_id, signature FROM key_signatures
        WHERE user_nid = $1 AND (signer_nid = $1 OR signer_nid = $2)
        """)

    /// The signatures on the users' keys that a reader may see: those by the users themselves, and the reader's own.
    public func keySignatures(
        on users: [UserNID], visibleTo reader: UserNID, _ snapshot: any Reader
    ) async throws -> [KeySignature] {
        try await snapshot.queryEach(Self.signatures, users.map { [$0.value, reader.value] }) { index, row in
            KeySignature(
                user: users[index], keyID: row.text(0), signer: UserNID(row.integer(1)), signerKeyID: row.text(2),
                signature: row.text(3))
        }
    }
}

/// All keys of a user.
public struct KeysOfUser: Sendable {
    public var devices: [StoredDeviceKeys] = []
    public var crossSigning: [StoredCrossSigningKey] = []
    /// Those that were made after the keys were uploaded.
    public var signatures: [KeySignature] = []
}

extension Database {
    /// What the keys of a user are read from.
    private enum Source: Int64 {
        case devices = 0
        case crossSigning = 1
        case signatures = 2
    }

    /// One question for all, as each is a trip to a networked engine.
    private static let all = Statement(
        """
        SELECT \(Source.devices.rawValue), k.device_id, 0, k.device_id, k.json, d.display_name FROM device_keys k
        LEFT JOIN devices d ON d.user_nid = k.user_nid AND d.device_id = k.device_id WHERE k.user_nid = $1
        UNION ALL SELECT \(Source.crossSigning.rawValue), public_key, usage, public_key, json, public_key
        FROM cross_signing_keys WHERE user_nid = $1
        UNION ALL SELECT \(Source.signatures.rawValue), key_id, signer_nid, signer_key_id, signature, signature
        FROM key_signatures WHERE user_nid = $1 AND (signer_nid = $1 OR signer_nid = $2)
        """)

    /// The keys of each of the users, with the signatures that somebody may see: those by the users themselves, and their own.
    public func keys(
        of users: [UserNID], visibleTo asking: UserNID, _ reader: any Reader
    ) async throws -> [KeysOfUser] {
        var keys = [KeysOfUser](repeating: KeysOfUser(), count: users.count)
        try await reader.run(Self.all, users.map { [$0.value, asking.value] }) { index, row in
            let user = users[index]
            switch Source(rawValue: row.integer(0)) {
            case .devices:
                keys[index].devices.append(
                    StoredDeviceKeys(
                        user: user, deviceID: row.text(1), json: row.blob(4), displayName: row.optionalText(5)))
            case .crossSigning:
                keys[index].crossSigning.append(
                    try Self.crossSigningKey(of: user, usage: row.integer(2), publicKey: row.text(1), row.blob(4)))
            default:
                keys[index].signatures.append(
                    KeySignature(
                        user: user, keyID: row.text(1), signer: UserNID(row.integer(2)), signerKeyID: row.text(3),
                        signature: row.text(4)))
            }
        }
        return keys
    }
}

extension Write {
    private static let insertKey = Statement(
        "INSERT INTO cross_signing_keys (user_nid, usage, public_key, json) VALUES ($1, $2, $3, $4)")
    private static let deleteKey = Statement(
        "DELETE FROM cross_signing_keys WHERE user_nid = $1 AND usage = $2 AND public_key = $3")

    /// Sets a cross-signing key; fails as a constraint if there is one meanwhile.
    public mutating func insert(_ key: StoredCrossSigningKey) {
        run(Self.insertKey, key.user.value, .integer(key.usage.rawValue), .text(key.publicKey), .blob(key.json))
    }

    /// Removes a cross-signing key and the signatures by it and on it; fails as a conflict if it is another one by now.
    public mutating func delete(_ key: StoredCrossSigningKey) {
        expect(
            1, otherwise: "the cross-signing key is another one", Self.deleteKey, key.user.value,
            .integer(key.usage.rawValue), .text(key.publicKey))
        deleteSignatures(onKey: key.publicKey, of: key.user)
        deleteSignatures(by: "ed25519:\(key.publicKey)", of: key.user)
    }

    private static let sign = Statement(
        """
        INSERT INTO key_signatures (user_nid, key_id, signer_nid, signer_key_id, signature, position)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (user_nid, key_id, signer_nid, signer_key_id)
        DO UPDATE SET signature = excluded.signature, position = excluded.position
        """)

    public mutating func put(_ signatures: [KeySignature]) {
        let position = takePosition()
        for signature in signatures {
            run(
                Self.sign, signature.user.value, .text(signature.keyID), signature.signer.value,
                .text(signature.signerKeyID), .text(signature.signature), position)
        }
    }

    private static let unsignKey = Statement("DELETE FROM key_signatures WHERE user_nid = $1 AND key_id = $2")
    private static let unsignBy = Statement("DELETE FROM key_signatures WHERE signer_nid = $1 AND signer_key_id = $2")
    private static let unsignAll = Statement("DELETE FROM key_signatures WHERE user_nid = $1 OR signer_nid = $1")

    public mutating func deleteSignatures(onKey keyID: String, of user: UserNID) {
        run(Self.unsignKey, user.value, .text(keyID))
    }

    mutating func deleteSignatures(by signerKeyID: String, of signer: UserNID) {
        run(Self.unsignBy, signer.value, .text(signerKeyID))
    }

    mutating func deleteAllSignatures(of user: UserNID) { run(Self.unsignAll, user.value) }
}
