import Database
import MatrixCore

extension DeviceKeyService {
    /// The devices and cross-signing keys of users (`POST /keys/query`).
    ///
    /// Whether a user exists is not told: a user of this server who has no keys is there with no devices.
    ///
    /// - Parameter asked: a map from user ID to the IDs of devices, none meaning all.
    public func query(
        _ asked: JSONView, timeout: Int64 = usualTimeout, for requester: Requester
    ) async throws -> JSON {
        var users: [UserID] = []
        var others: [UserID] = []
        var wanted: [UserID: Set<ByteString>] = [:]
        var count = 0
        for (name, devices) in asked.members {
            guard let user = UserID(name) else { throw MatrixError.invalidParam("“\(name)” is not a user ID.") }
            let ids = devices.elements.compactMap(\.string)
            guard devices.isArray, ids.count == devices.count else {
                throw MatrixError.badJSON("The devices of \(user) must be an array of strings.")
            }
            count += 1 + ids.count
            guard user.server == serverName else {
                others.append(user)
                if !ids.isEmpty { wanted[user] = Set(ids.map { ByteString($0) }) }
                continue
            }
            users.append(user)
            if !ids.isEmpty { wanted[user] = Set(ids.map { ByteString($0) }) }
        }
        guard count <= Self.mostAsked else {
            throw MatrixError.invalidParam("A request may ask for \(Self.mostAsked) devices.")
        }
        let remote = try await remoteDevices.keys(of: others, timeout: Self.bounded(timeout))
        let own = try await self.own(users, wanted, for: requester)
        return try await add(remote, wanted, to: own, for: requester)
    }

    /// Milliseconds that other servers are given to answer, unless the client says otherwise.
    public static let usualTimeout: Int64 = 10_000

    static func bounded(_ timeout: Int64) -> Int64 { min(max(timeout, 1_000), 60_000) }

    /// What other servers say of their users, with the signatures that the requester has made on their keys.
    private func add(
        _ remote: RemoteDevices.Answer, _ wanted: [UserID: Set<ByteString>], to answer: JSON, for requester: Requester
    ) async throws -> JSON {
        var answer = answer.objectValue ?? [:]
        func part(_ name: String) -> JSONObject { answer[name]?.objectValue ?? [:] }
        var (deviceKeys, masterKeys) = (part("device_keys"), part("master_keys"))
        var (selfSigningKeys, failures) = (part("self_signing_keys"), part("failures"))
        let numbers = try await database.existingNumbers(ofUsers: Array(remote.users.keys))
        let signatures = try await database.read { reader in
            try await self.database.keySignatures(on: numbers.values.sorted(), visibleTo: requester.nid, reader)
        }
        let byKey = Dictionary(grouping: signatures) { SignedKey(user: $0.user, keyID: ByteString($0.keyID)) }
        for (user, keys) in remote.users {
            var devices = JSONObject()
            for device in keys.devices where wanted[user]?.contains(ByteString(device.id)) ?? true {
                devices[device.id] = device.keys
            }
            deviceKeys[user.string] = .object(devices)
            if var master = keys.master {
                if let nid = numbers[user] {
                    for key in master["keys"]?.objectValue ?? [:] {
                        let name = ByteString(key.value.stringValue ?? "")
                        let added = byKey[SignedKey(user: nid, keyID: name)] ?? []
                        Self.add(added.filter { $0.signer == requester.nid }, to: &master, of: user, requester)
                    }
                }
                masterKeys[user.string] = master
            }
            if let key = keys.selfSigning { selfSigningKeys[user.string] = key }
        }
        for (server, failure) in remote.failures { failures[server.string] = failure }
        answer["device_keys"] = .object(deviceKeys)
        answer["master_keys"] = .object(masterKeys)
        answer["self_signing_keys"] = .object(selfSigningKeys)
        answer["failures"] = .object(failures)
        return .object(answer)
    }

    /// What everybody may know of the keys of users of this server.
    ///
    /// - Parameter asked: for each user the IDs of devices, none meaning all.
    func publicKeys(of asked: [UserID: [String]]) async throws -> JSON {
        var wanted: [UserID: Set<ByteString>] = [:]
        for (user, devices) in asked where !devices.isEmpty { wanted[user] = Set(devices.map { ByteString($0) }) }
        var answer = try await own(asked.keys.sorted(), wanted, for: nil).objectValue ?? [:]
        for field in ["failures", "user_signing_keys"] { answer.remove(field) }
        return .object(answer)
    }

    private func own(
        _ users: [UserID], _ wanted: [UserID: Set<ByteString>], for requester: Requester?
    ) async throws -> JSON {
        let numbers = try await database.existingNumbers(ofUsers: users)
        let known = users.compactMap { numbers[$0] }
        let found = try await database.readOnce { reader in
            try await self.database.keys(of: known, visibleTo: requester?.nid ?? UserNID(0), reader)
        }
        var answers: (devices: JSONObject, master: JSONObject, selfSigning: JSONObject, userSigning: JSONObject) =
            ([:], [:], [:], [:])
        var rest = found[...]
        for user in users {
            guard numbers[user] != nil, let keys = rest.popFirst() else {
                answers.devices[user.string] = [:]
                continue
            }
            let signatures = Dictionary(grouping: keys.signatures) { ByteString($0.keyID) }
            func added(_ keyID: String) -> [KeySignature] {
                signatures.isEmpty ? [] : signatures[ByteString(keyID)] ?? []
            }
            let asked = wanted[user]
            var own: JSONObject = [:]
            for device in keys.devices where asked?.contains(ByteString(device.deviceID)) ?? true {
                let unsigned: JSON = device.displayName.map { ["device_display_name": .string($0)] } ?? [:]
                own[device.deviceID] = Self.withSignatures(
                    added(device.deviceID), device.json, unsigned, of: user, requester)
            }
            answers.devices[user.string] = .object(own)
            for key in keys.crossSigning {
                let json = Self.withSignatures(added(key.publicKey), key.json, of: user, requester)
                guard let json else { continue }
                switch key.usage {
                case .master: answers.master[user.string] = json
                case .selfSigning: answers.selfSigning[user.string] = json
                // Whom somebody has verified is nobody else's business.
                case .userSigning: if user == requester?.userID { answers.userSigning[user.string] = json }
                }
            }
        }
        return [
            "device_keys": .object(answers.devices), "master_keys": .object(answers.master),
            "self_signing_keys": .object(answers.selfSigning), "user_signing_keys": .object(answers.userSigning),
            "failures": [:],
        ]
    }

    private struct SignedKey: Hashable {
        let user: UserNID
        let keyID: ByteString
    }

    /// A key as it is stored, with the signatures added that were made since. Mostly there are none, and its bytes stay as they are.
    ///
    /// - Parameter unsigned: what is said of it besides; stored keys have no such field.
    /// - Returns: nil if what is stored is no object, or an empty one.
    private static func withSignatures(
        _ added: [KeySignature], _ stored: [UInt8], _ unsigned: JSON? = nil, of owner: UserID, _ requester: Requester?
    ) -> JSON? {
        guard added.isEmpty else {
            guard var json = try? JSONDocument(parsing: stored, limits: .own).root.json,
                json.objectValue?.isEmpty == false
            else {
                return nil
            }
            add(added, to: &json, of: owner, requester)
            json["unsigned"] = unsigned
            return json
        }
        guard stored.count > 2, stored.first == UInt8(ascii: "{"), stored.last == UInt8(ascii: "}") else { return nil }
        guard let unsigned else { return .raw(stored) }
        var bytes = stored
        bytes.removeLast()
        bytes += #","unsigned":"#.utf8
        bytes += unsigned.encoded()
        bytes.append(UInt8(ascii: "}"))
        return .raw(bytes)
    }

    /// Signatures stand by the user who has made them: the key's owner, or who asks.
    private static func add(
        _ added: [KeySignature], to json: inout JSON, of owner: UserID, _ requester: Requester?
    ) {
        guard !added.isEmpty else { return }
        var all = json["signatures"] ?? [:]
        for signature in added {
            let signer = signature.signer == requester?.nid ? requester?.userID ?? owner : owner
            var own = all[signer.string] ?? [:]
            own[signature.signerKeyID] = .string(signature.signature)
            all[signer.string] = own
        }
        json["signatures"] = all
    }
}
