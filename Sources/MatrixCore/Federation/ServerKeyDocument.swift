/// The keys that a server publishes (Server-Server API, "Retrieving server keys").
public struct ServerKeyDocument: Sendable {
    public let server: ServerName
    /// Milliseconds since 1970.
    public let validUntil: Int64
    /// Keys that the server signs with now, by their IDs; 32 bytes each.
    public let keys: [String: [UInt8]]
    /// Keys that it signed with before, and until when.
    public let oldKeys: [String: (publicKey: [UInt8], expired: Int64)]
    public let view: JSONView

    /// Keys of each kind that are read at most.
    private static let mostKeys = 50

    /// Reads a document and checks that the server has signed it with each of its current keys.
    ///
    /// - Returns: nil if it is none, isn't signed so, or is that of another server.
    public init?(_ view: JSONView, of server: ServerName) {
        guard view["server_name"]?.isString(server.string) == true,
            let validUntil = view["valid_until_ts"]?.integer, let listed = view["verify_keys"], listed.isObject
        else { return nil }
        var keys: [String: [UInt8]] = [:]
        for (keyID, entry) in listed.members.prefix(Self.mostKeys) {
            guard keyID.utf8.starts(with: "ed25519:".utf8) else { continue }
            guard let key = entry["key"]?.string.flatMap({ Base64.decode($0) }), key.count == 32,
                let verify = VerifyKey(keyID: keyID, publicKey: key), view.isSigned(by: server, with: verify)
            else { return nil }
            keys[keyID] = key
        }
        guard !keys.isEmpty else { return nil }
        var old: [String: (publicKey: [UInt8], expired: Int64)] = [:]
        for (keyID, entry) in view["old_verify_keys"]?.members.prefix(Self.mostKeys).map({ $0 }) ?? [] {
            guard keyID.utf8.starts(with: "ed25519:".utf8), keys[keyID] == nil,
                let key = entry["key"]?.string.flatMap({ Base64.decode($0) }), key.count == 32,
                let expired = entry["expired_ts"]?.integer
            else { continue }
            old[keyID] = (key, expired)
        }
        self.server = server
        self.validUntil = validUntil
        self.keys = keys
        oldKeys = old
        self.view = view
    }

    /// The document of this server, signed.
    public static func make(
        for server: ServerName, validUntil: Int64, key: SigningKey,
        old: [(keyID: String, publicKey: [UInt8], expired: Int64)]
    ) throws(CanonicalJSONError) -> JSON {
        var past = JSONObject()
        for entry in old {
            past[entry.keyID] = ["key": .string(Base64.encode(entry.publicKey)), "expired_ts": .integer(entry.expired)]
        }
        let document: JSON = [
            "server_name": .string(server.string), "valid_until_ts": .integer(validUntil),
            "verify_keys": [key.keyID: ["key": .string(Base64.encode(key.publicKey))]],
            "old_verify_keys": .object(past),
        ]
        return try key.sign(document, as: server)
    }
}
