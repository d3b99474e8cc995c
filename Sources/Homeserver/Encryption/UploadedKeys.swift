import Database
import MatrixCore

/// Keys as clients upload them: what must be so for them to be kept (Client-Server API, "Key algorithms", "Device keys",
/// "One-time and fallback keys"). Whether a device has signed its own keys is for those to check who use them.
enum UploadedKeys {
    /// The largest identity keys of a device; keys of today have under 1 KB.
    private static let largestDeviceKeys = 32_768
    /// The largest one-time or fallback key; those of today have under 300 bytes.
    private static let largestKey = 4_096
    /// One-time keys of one request.
    static let mostInRequest = 1_000

    /// The identity keys of the requester's device, or of another one of the user.
    ///
    /// - Returns: their canonical JSON, without `unsigned`.
    static func deviceKeys(_ json: JSONView, of user: UserID, _ deviceID: String) throws -> [UInt8] {
        guard try json.requiredString("user_id").hasSameBytes(as: user.string) else {
            throw MatrixError.invalidParam("“user_id” of the device keys must be your own, \(user).")
        }
        guard try json.requiredString("device_id").hasSameBytes(as: deviceID) else {
            throw MatrixError.invalidParam("“device_id” of the device keys must be that of the device, \(deviceID).")
        }
        guard try json.optionalStrings("algorithms") != nil else { throw MatrixError.missingParam("algorithms") }
        guard let keys = try json.optionalObject("keys") else { throw MatrixError.missingParam("keys") }
        for (name, key) in keys.members {
            guard key.string != nil else { throw MatrixError.badJSON("The key “\(name)” must be a string.") }
            guard let (_, id) = split(name), id.hasSameBytes(as: deviceID) else {
                throw MatrixError.invalidParam("The key “\(name)” is not named <algorithm>:\(deviceID).")
            }
        }
        guard let signatures = try json.optionalObject("signatures") else {
            throw MatrixError.missingParam("signatures")
        }
        try checkSignatures(signatures)
        return try canonical(json, omitting: ["unsigned"], limit: largestDeviceKeys, what: "The device keys")
    }

    /// One-time or fallback keys.
    static func publicKeys(_ json: JSONView) throws -> [PublicKey] {
        guard json.count <= mostInRequest else {
            throw MatrixError.invalidParam("These are more than \(mostInRequest) keys at once.")
        }
        return try json.members.map { name, key in
            guard let (algorithm, id) = split(name) else {
                throw MatrixError.invalidParam("The key “\(name)” is not named <algorithm>:<key ID>.")
            }
            let publicKey: String
            if let text = key.string {
                publicKey = text
            } else {
                guard key.isObject else {
                    throw MatrixError.badJSON("The key “\(name)” must be a string or an object.")
                }
                publicKey = try key.requiredString("key")
                guard let signatures = try key.optionalObject("signatures") else {
                    throw MatrixError.missingParam("signatures")
                }
                try checkSignatures(signatures)
                _ = try key.optionalBool("fallback")
            }
            return PublicKey(
                algorithm: algorithm, keyID: id,
                json: try canonical(key, omitting: [], limit: largestKey, what: "The key “\(name)”"),
                publicKey: publicKey)
        }
    }

    /// Algorithm and ID of a key's name; nil if it has not got both, or is too long.
    static func split(_ name: String) -> (algorithm: String, id: String)? {
        guard name.utf8.count <= 255, let colon = name.utf8.firstIndex(of: UInt8(ascii: ":")),
            colon != name.utf8.startIndex, name.utf8.index(after: colon) != name.utf8.endIndex
        else { return nil }
        return (String(name[..<colon]), String(name[name.utf8.index(after: colon)...]))
    }

    private static func checkSignatures(_ signatures: JSONView) throws {
        for (user, byKey) in signatures.members {
            guard byKey.isObject, byKey.members.allSatisfy({ $0.value.string != nil }) else {
                throw MatrixError.badJSON("The signatures of \(user) must be strings by the names of their keys.")
            }
        }
    }

    private static func canonical(_ json: JSONView, omitting: [String], limit: Int, what: String) throws -> [UInt8] {
        guard let bytes = try? json.canonical(omitting: omitting) else {
            throw MatrixError.badJSON("\(what) can't be signed: the numbers of canonical JSON are integers.")
        }
        guard bytes.count <= limit else { throw MatrixError.tooLarge("\(what) may have \(limit) bytes.") }
        return bytes
    }
}

extension JSONView {
    /// Whether the object bears a valid Ed25519 signature of a user's key (Appendices, "Checking for a Signature").
    ///
    /// - Parameters:
    ///   - keyID: `ed25519:` and the device's ID or the public key.
    ///   - publicKey: in unpadded Base64.
    func isSigned(by user: UserID, keyID: String, publicKey: String) -> Bool {
        guard let text = self["signatures"]?[user.string]?[keyID]?.string, let signature = Base64.decode(text),
            let decoded = Base64.decode(publicKey), let key = VerifyKey(keyID: keyID, publicKey: decoded),
            let bytes = try? canonical(omitting: ["signatures", "unsigned"])
        else { return false }
        return key.isValidSignature(signature, of: bytes)
    }
}
