import Database
import MatrixCore

extension CrossSigningService {
    /// Keys that one request may sign. Each signature costs some 60 µs to verify.
    private static let mostKeys = 500

    private struct Target {
        let user: UserID
        /// A device's ID, or a public key.
        let keyID: String
        let signed: JSONView
    }

    /// What is known of everybody whose keys are signed.
    private struct Known: Sendable {
        let numbers: [UserID: UserNID]
        let devices: [StoredDeviceKeys]
        let keys: [StoredCrossSigningKey]
    }

    private struct Failure: Error {
        let error: MatrixError
    }

    /// Publishes signatures of the requester's keys (`POST /keys/signatures/upload`). Every one is verified.
    ///
    /// - Parameter body: a map from user ID to a map from key ID to the signed object.
    /// - Returns: the errors, by user and key.
    public func sign(_ body: JSONView, for requester: Requester) async throws -> JSONObject {
        var targets: [Target] = []
        for (name, keys) in body.members {
            guard let user = UserID(name) else { throw MatrixError.invalidParam("“\(name)” is not a user ID.") }
            guard keys.isObject else { throw MatrixError.badJSON("The keys of \(user) must be an object.") }
            for (keyID, signed) in keys.members {
                guard signed.isObject else { throw MatrixError.badJSON("The key \(keyID) must be a signed object.") }
                targets.append(Target(user: user, keyID: keyID, signed: signed))
            }
        }
        guard targets.count <= Self.mostKeys else {
            throw MatrixError.invalidParam("A request may sign \(Self.mostKeys) keys.")
        }
        let numbers = try await database.existingNumbers(ofUsers: targets.map(\.user))
        let users = Array(Set(numbers.values).union([requester.nid]))
        let elsewhere = try await masterKeys(ofOthers: numbers)
        let known = try await database.read { reader in
            Known(
                numbers: numbers, devices: try await self.database.deviceKeys(of: users, reader),
                keys: try await self.database.crossSigningKeys(of: users, reader) + elsewhere)
        }
        var failures: JSONObject = [:]
        var signatures: [KeySignature] = []
        for target in targets {
            do { signatures += try verified(target, known, requester) } catch let failure as Failure {
                var ofUser = failures[target.user.string] ?? [:]
                ofUser[target.keyID] = failure.error.json
                failures[target.user.string] = ofUser
            }
        }
        if !signatures.isEmpty { try await publish(signatures, for: requester) }
        return failures
    }

    /// The master keys of users of other servers, as those have told them: whoever signs one has asked for it before.
    private func masterKeys(ofOthers numbers: [UserID: UserNID]) async throws -> [StoredCrossSigningKey] {
        var keys: [StoredCrossSigningKey] = []
        for (user, nid) in numbers where user.server != serverName {
            guard let told = try await database.remoteDevices(of: nid),
                let key = (try? JSONDocument(parsing: told, limits: .envelope))?.root["master_key"],
                key["user_id"]?.isString(user.string) == true,
                let publicKey = key["keys"]?.members.first(where: { _ in true })?.value.string,
                let canonical = try? key.canonical(omitting: ["signatures", "unsigned"])
            else { continue }
            keys.append(StoredCrossSigningKey(user: nid, usage: .master, publicKey: publicKey, json: canonical))
        }
        return keys
    }

    private func publish(_ signatures: [KeySignature], for requester: Requester) async throws {
        var write = Write()
        write.put(signatures)
        // A signature on somebody else's key is for the own devices alone.
        if signatures.contains(where: { $0.user == requester.nid }) {
            write.changeDeviceList(of: requester.nid)
            try await database.announceDevices(of: requester.nid, in: &write)
        } else {
            write.topics.append(.user(requester.nid))
        }
        try await database.write(write)
    }

    /// The requester's signatures on a key.
    private func verified(_ target: Target, _ known: Known, _ requester: Requester) throws -> [KeySignature] {
        guard let nid = known.numbers[target.user] else { throw Self.unknownKey(target) }
        let isOwn = nid == requester.nid
        let device = isOwn ? known.devices.first { $0.user == nid && $0.deviceID.hasSameBytes(as: target.keyID) } : nil
        // Of somebody else only the master key can be signed; one's own other keys come signed.
        let key = known.keys.first {
            $0.user == nid && $0.usage == .master && $0.publicKey.hasSameBytes(as: target.keyID)
        }
        guard let stored = device?.json ?? key?.json else { throw Self.unknownKey(target) }
        guard let signed = try? target.signed.canonical(omitting: ["signatures", "unsigned"]),
            signed == DeviceKeyService.signedPart(stored)
        else {
            throw Failure(error: .invalidParam("This is not the key \(target.keyID) that \(target.user) has uploaded."))
        }
        let signers = signers(of: device != nil ? .device : isOwn ? .ownMaster : .otherMaster, known, requester)
        var found: [KeySignature] = []
        let own = target.signed["signatures"]?[requester.userID.string].map { Array($0.members) } ?? []
        for (keyID, value) in own {
            // A device's signature on its own keys came with them.
            if let device, keyID.hasSameBytes(as: "ed25519:\(device.deviceID)") { continue }
            guard let text = value.string, let publicKey = signers[ByteString(keyID)],
                target.signed.isSigned(by: requester.userID, keyID: keyID, publicKey: publicKey)
            else {
                throw Failure(
                    error: MatrixError(
                        .invalidSignature,
                        "The signature of \(keyID) is wrong, or the key isn't one that may sign this."))
            }
            found.append(
                KeySignature(
                    user: nid, keyID: target.keyID, signer: requester.nid, signerKeyID: keyID, signature: text))
        }
        guard !found.isEmpty else {
            throw Failure(
                error: MatrixError(.invalidSignature, "There is no signature of yours on the key \(target.keyID)."))
        }
        return found
    }

    private enum Kind {
        case device, ownMaster, otherMaster
    }

    /// The requester's keys that may sign a kind of key ("Cross-signing": which key signs which), with their names.
    private func signers(of kind: Kind, _ known: Known, _ requester: Requester) -> [ByteString: String] {
        let own: [(String, String?)]
        func crossSigning(_ usage: CrossSigningUsage) -> [(String, String?)] {
            known.keys.filter { $0.user == requester.nid && $0.usage == usage }.map { ($0.publicKey, $0.publicKey) }
        }
        switch kind {
        case .device: own = crossSigning(.selfSigning)
        case .ownMaster: own = known.devices.filter { $0.user == requester.nid }.map { ($0.deviceID, $0.ed25519) }
        case .otherMaster: own = crossSigning(.userSigning)
        }
        return own.reduce(into: [:]) { $0[ByteString("ed25519:\($1.0)")] = $1.1 }
    }

    private static func unknownKey(_ target: Target) -> Failure {
        Failure(error: .notFound("\(target.user) has no key \(target.keyID) that you could sign."))
    }
}
