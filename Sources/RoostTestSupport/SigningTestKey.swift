import MatrixCore

/// A client's Ed25519 key in a test: of a device, or for cross-signing.
public struct SigningTestKey: Sendable {
    /// The public key in unpadded Base64.
    public let publicKey: String
    private let key: SigningKey

    /// - Parameter seed: keys of different seeds differ.
    public init(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let bytes = (0..<32).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
        guard let key = SigningKey(seed: bytes, version: "test") else { preconditionFailure("a seed has 32 bytes") }
        self.key = key
        publicKey = Base64.encode(key.publicKey)
    }

    /// The object with a signature of this key (Appendices, "Signing JSON").
    ///
    /// - Parameter keyID: the name after `ed25519:`; the public key when nil.
    public func sign(_ object: JSON, as user: String, keyID: String? = nil) -> JSON {
        guard
            let bytes = try? JSONDocument(parsing: object.encoded()).root.canonical(omitting: [
                "signatures", "unsigned",
            ])
        else { preconditionFailure("a test signs what is canonical") }
        var signed = object
        var all = object["signatures"] ?? [:]
        var own = all[user] ?? [:]
        own["ed25519:\(keyID ?? publicKey)"] = .string(Base64.encode(key.sign(bytes)))
        all[user] = own
        signed["signatures"] = all
        return signed
    }

    /// This key as a cross-signing key.
    public func crossSigningKey(_ usage: String, of user: String) -> JSON {
        [
            "user_id": .string(user), "usage": [.string(usage)],
            "keys": ["ed25519:\(publicKey)": .string(publicKey)],
        ]
    }

    /// The identity keys of a device whose signing key this is, signed.
    public func deviceKeys(of user: String, _ deviceID: String) -> JSON {
        sign(
            [
                "user_id": .string(user), "device_id": .string(deviceID),
                "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
                "keys": [
                    "ed25519:\(deviceID)": .string(publicKey),
                    "curve25519:\(deviceID)": .string("curve of \(deviceID)"),
                ],
            ], as: user, keyID: deviceID)
    }

    /// A one-time or fallback key of a device whose signing key this is, signed.
    public func oneTimeKey(_ publicKey: String, of user: String, _ deviceID: String, fallback: Bool = false) -> JSON {
        var key: JSON = ["key": .string(publicKey)]
        if fallback { key["fallback"] = true }
        return sign(key, as: user, keyID: deviceID)
    }
}

extension JSON {
    /// The value as services read it.
    public var view: JSONView {
        guard let document = try? JSONDocument(parsing: encoded()) else { preconditionFailure("this is JSON") }
        return document.root
    }
}
