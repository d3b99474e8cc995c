import Database
import MatrixCore

/// Cross-signing (Client-Server API, "Cross-signing"): keys by which users vouch for their devices and for one another.
public final class CrossSigningService: Sendable {
    let database: Database
    let serverName: ServerName
    private let devices: DeviceService

    init(database: Database, serverName: ServerName, devices: DeviceService) {
        self.database = database
        self.serverName = serverName
        self.devices = devices
    }

    /// A cross-signing key in a request.
    private struct Uploaded {
        let view: JSONView
        let key: StoredCrossSigningKey
        var keyID: String { "ed25519:\(key.publicKey)" }
    }

    /// What the user has at the moment.
    private struct Present {
        var keys: [CrossSigningUsage: StoredCrossSigningKey]
        var devices: [StoredDeviceKeys]
        var deviceIDs: [String]
    }

    /// Attempts before it is given up to write what somebody else changes at the same time.
    private static let attempts = 5

    /// Publishes cross-signing keys (`POST /keys/device_signing/upload`).
    ///
    /// The user must authenticate once more, unless there were no keys before or these are the same.
    public func upload(
        _ body: JSONView, for requester: Requester
    ) async throws -> DeviceService.Outcome {
        let auth = try body.optionalObject("auth")
        let uploaded = try CrossSigningUsage.allCases.compactMap { usage in
            try body.optionalObject(usage.field).map { try Self.parse($0, usage, of: requester) }
        }
        for _ in 0..<Self.attempts {
            let present = try await present(of: requester)
            try check(uploaded, present, requester)
            let isNew = uploaded.contains { one in
                present.keys[one.key.usage].map { !$0.isSame(as: one.key) } ?? true
            }
            do {
                // An application service has no password to prove itself by (Application Service API, "Cross-signing").
                if present.keys[.master] == nil || !isNew || requester.appservice != nil {
                    var write = Write()
                    try await publish(uploaded, over: present, requester, in: &write)
                    if !write.isEmpty { try await database.write(write) }
                    return .done
                }
                let fingerprint = Base64.encode(Hashing.sha256(uploaded.flatMap(\.key.json)))
                return try await devices.confirmed("cross-signing \(fingerprint)", auth, requester) { write in
                    try await self.publish(uploaded, over: present, requester, in: &write)
                }
            } catch DatabaseError.conflict, DatabaseError.constraint {
                // Somebody else has changed the keys: what must be authenticated may be otherwise now.
                continue
            }
        }
        throw MatrixError(.unknown, "The keys are being changed by somebody else; try again.", status: 503)
    }

    private static func parse(_ json: JSONView, _ usage: CrossSigningUsage, of requester: Requester) throws -> Uploaded
    {
        let name = usage.field
        guard try json.requiredString("user_id").hasSameBytes(as: requester.userID.string) else {
            throw MatrixError.invalidParam("“user_id” of \(name) must be your own, \(requester.userID).")
        }
        guard let usages = try json.optionalStrings("usage") else { throw MatrixError.missingParam("usage") }
        guard usages.contains(usage.name) else {
            throw MatrixError.invalidParam("“usage” of \(name) must have \(usage.name) in it.")
        }
        guard let keys = try json.optionalObject("keys") else { throw MatrixError.missingParam("keys") }
        for (_, key) in keys.members where key.string == nil {
            throw MatrixError.badJSON("The key of \(name) must be a string.")
        }
        guard keys.count == 1, let (keyID, value) = keys.members.first(where: { _ in true }), let key = value.string,
            keyID.hasSameBytes(as: "ed25519:\(key)"), let bytes = Base64.decode(key), bytes.count == 32,
            Base64.encode(bytes).hasSameBytes(as: key)
        else {
            throw MatrixError.invalidParam(
                "\(name) must have one key, named ed25519:<the public key> and with the public key as its value.")
        }
        guard let canonical = try? json.canonical(omitting: ["signatures", "unsigned"]), canonical.count <= 4_096 else {
            throw MatrixError.invalidParam("\(name) is too large, or is not canonical JSON.")
        }
        _ = try json.optionalObject("signatures")
        return Uploaded(
            view: json, key: StoredCrossSigningKey(user: requester.nid, usage: usage, publicKey: key, json: canonical))
    }

    private func present(of requester: Requester) async throws -> Present {
        let user = requester.nid
        let ids = try await database.deviceIDs(of: user)
        return try await database.read { reader in
            let keys = try await self.database.crossSigningKeys(of: [user], reader)
            return Present(
                keys: Dictionary(uniqueKeysWithValues: keys.map { ($0.usage, $0) }),
                devices: try await self.database.deviceKeys(of: [user], reader), deviceIDs: ids)
        }
    }

    /// Checks that the keys fit together.
    ///
    /// - Throws: `M_MISSING_PARAM` if there is no master key, `M_INVALID_SIGNATURE`, `M_FORBIDDEN` if a key is named as a
    ///   device is.
    private func check(_ uploaded: [Uploaded], _ present: Present, _ requester: Requester) throws {
        guard
            let master = uploaded.first(where: { $0.key.usage == .master })?.key.publicKey
                ?? present.keys[.master]?.publicKey
        else { throw MatrixError(.missingParam, "There is no master key; upload “master_key” first.") }
        for one in uploaded {
            let key = one.key
            if key.usage != .master,
                !one.view.isSigned(by: requester.userID, keyID: "ed25519:\(master)", publicKey: master)
            {
                throw MatrixError(
                    .invalidSignature, "\(key.usage.field) is not signed by the master key, or not rightly.")
            }
            // Both kinds of keys are found by these names in one map.
            if present.deviceIDs.contains(where: { $0.hasSameBytes(as: key.publicKey) }) {
                throw MatrixError.forbidden("\(key.usage.field) has the same name as one of your devices.")
            }
            let others =
                uploaded.filter { $0.key.usage != key.usage }.map(\.key)
                + present.keys.values.filter { other in
                    other.usage != key.usage && !uploaded.contains { $0.key.usage == other.usage }
                }
            if others.contains(where: { $0.publicKey == key.publicKey }) {
                throw MatrixError.invalidParam("\(key.usage.field) is the same as another key of yours.")
            }
        }
    }

    private func publish(
        _ uploaded: [Uploaded], over present: Present, _ requester: Requester, in write: inout Write
    ) async throws {
        var signatures: [KeySignature] = []
        var changes = false
        for one in uploaded {
            signatures += try verified(one, uploaded, present, requester)
            let before = present.keys[one.key.usage]
            if let before, before.isSame(as: one.key) { continue }
            changes = true
            if let before { write.delete(before) }
            write.insert(one.key)
            guard one.key.usage == .master else { continue }
            // What the old master key has signed is worth nothing under the new one.
            for (usage, key) in present.keys.sorted(by: { $0.key.rawValue < $1.key.rawValue })
            where usage != .master && !uploaded.contains(where: { $0.key.usage == usage }) {
                write.delete(key)
            }
        }
        guard changes else { return }
        write.put(signatures)
        write.changeDeviceList(of: requester.nid)
        try await database.announceDevices(of: requester.nid, in: &write)
    }

    /// The signatures that a key brings with it: of the master key, or, on the master key, of devices.
    private func verified(
        _ one: Uploaded, _ uploaded: [Uploaded], _ present: Present, _ requester: Requester
    ) throws -> [KeySignature] {
        try one.view["signatures"]?[requester.userID.string]?.members.compactMap { keyID, value -> KeySignature? in
            guard let text = value.string else { throw MatrixError.badJSON("A signature must be a string.") }
            let key: String
            if one.key.usage == .master {
                guard let (_, id) = UploadedKeys.split(keyID),
                    let device = present.devices.first(where: { $0.deviceID.hasSameBytes(as: id) }),
                    let ed25519 = device.ed25519
                else { return nil }
                key = ed25519
            } else {
                guard
                    let master = uploaded.first(where: { $0.key.usage == .master })?.key ?? present.keys[.master],
                    keyID.hasSameBytes(as: "ed25519:\(master.publicKey)")
                else { return nil }
                key = master.publicKey
            }
            guard one.view.isSigned(by: requester.userID, keyID: keyID, publicKey: key) else {
                throw MatrixError(.invalidSignature, "The signature of \(keyID) on \(one.key.usage.field) is wrong.")
            }
            return KeySignature(
                user: requester.nid, keyID: one.key.publicKey, signer: requester.nid, signerKeyID: keyID,
                signature: text)
        } ?? []
    }
}

extension CrossSigningUsage {
    /// The word in `usage`.
    var name: String {
        switch self {
        case .master: "master"
        case .selfSigning: "self_signing"
        case .userSigning: "user_signing"
        }
    }

    /// The member of the request.
    fileprivate var field: String { "\(name)_key" }
}

extension StoredCrossSigningKey {
    fileprivate func isSame(as other: StoredCrossSigningKey) -> Bool {
        publicKey.hasSameBytes(as: other.publicKey) && json == other.json
    }
}

extension StoredDeviceKeys {
    /// The device's signing key in Base64, as far as it has one.
    var ed25519: String? { try? JSONDocument(parsing: json, limits: .own).root["keys"]?["ed25519:\(deviceID)"]?.string }
}

extension AccountService {
    /// Cross-signing keys and devices share the names under which signatures stand ("Key and signature security").
    ///
    /// - Throws: `M_INVALID_PARAM` if a device would be named as one of the user's cross-signing keys.
    func checkIsNoCrossSigningKey(_ deviceID: String, of user: UserNID) async throws {
        // Public keys have 43 characters in Base64.
        guard deviceID.utf8.count == 43 else { return }
        let keys = try await database.read { try await self.database.crossSigningKeys(of: [user], $0) }
        guard keys.contains(where: { $0.publicKey.hasSameBytes(as: deviceID) }) else { return }
        throw MatrixError.invalidParam("The device ID is the name of one of the user's cross-signing keys.")
    }
}
