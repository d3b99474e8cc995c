import Database
import MatrixCore

/// The keys of devices (Client-Server API, "Key management API"): devices upload theirs, others ask for them and claim those
/// for one use.
public final class DeviceKeyService: Sendable {
    let database: Database
    let serverName: ServerName
    /// Unclaimed one-time keys that a device may have.
    static let mostOneTimeKeys = 5_000
    /// Keys that were handed out and are remembered, so that they are not taken again.
    private static let mostRemembered = 5_000
    /// Keys that one request may claim or ask for.
    static let mostAsked = 10_000
    /// Keys that one write claims: it holds up others while it is carried out.
    private static let claimsPerWrite = 100

    let remoteDevices: RemoteDevices

    init(database: Database, serverName: ServerName, remoteDevices: RemoteDevices) {
        self.remoteDevices = remoteDevices
        self.database = database
        self.serverName = serverName
    }

    // MARK: - Uploading

    /// Publishes keys of the requester's device (`POST /keys/upload`).
    ///
    /// - Returns: the unclaimed one-time keys that the device has now, by algorithm.
    /// - Throws: `M_INVALID_PARAM` if a one-time key of that name is there already and is another one.
    public func upload(_ body: JSONView, for requester: Requester) async throws -> [String: Int] {
        var write = Write()
        if let keys = try body.optionalObject("device_keys") {
            let json = try UploadedKeys.deviceKeys(keys, of: requester.userID, requester.deviceID)
            try await setDeviceKeys(json, of: requester, in: &write)
        }
        let oneTime = try body.optionalObject("one_time_keys").map { try UploadedKeys.publicKeys($0) } ?? []
        let fallback = try body.optionalObject("fallback_keys").map { try UploadedKeys.publicKeys($0) } ?? []
        try await add(oneTime, fallback, deviceID: requester.deviceID, of: requester.nid, in: &write)
        if !write.isEmpty {
            do { try await database.write(write) } catch DatabaseError.conflict {
                throw MatrixError.unknownToken()
            }
        }
        return try await counts(of: requester).oneTime
    }

    /// Sets identity keys, if they are others than before.
    func setDeviceKeys(_ json: [UInt8], of requester: Requester, in write: inout Write) async throws {
        let stored = try await database.read { reader in
            try await self.database.deviceKeys(of: [(requester.nid, requester.deviceID)], reader).first
        }
        if let stored, stored.json == json { return }
        write.putDeviceKeys(json, of: requester.nid, requester.deviceID)
        // Signatures by cross-signing keys are over all but the signatures.
        if let stored, Self.signedPart(stored.json) != Self.signedPart(json) {
            write.deleteSignatures(onKey: requester.deviceID, of: requester.nid)
        }
        write.changeDeviceList(of: requester.nid)
        try await database.announceDevices(of: requester.nid, in: &write)
    }

    static func signedPart(_ json: [UInt8]) -> [UInt8]? {
        try? JSONDocument(parsing: json).root.canonical(omitting: ["signatures", "unsigned"])
    }

    /// Adds one-time and fallback keys of a device.
    func add(
        _ oneTime: [PublicKey], _ fallback: [PublicKey], deviceID: String, of user: UserNID, in write: inout Write
    ) async throws {
        guard Set(fallback.map { ByteString($0.algorithm) }).count == fallback.count else {
            throw MatrixError.invalidParam("There may be one fallback key for each algorithm.")
        }
        if !oneTime.isEmpty {
            let present = try await database.oneTimeKeys(named: oneTime, of: user, deviceID)
            for (index, json) in present where json != oneTime[index].json {
                throw MatrixError.invalidParam(
                    "There is another one-time key named \(oneTime[index].algorithm):\(oneTime[index].keyID) already.")
            }
            let counts = try await database.read { try await self.database.keyCounts(of: user, deviceID, $0) }
            guard counts.oneTime.values.reduce(0, +) + oneTime.count - present.count <= Self.mostOneTimeKeys else {
                throw MatrixError.invalidParam(
                    "A device may have \(Self.mostOneTimeKeys) one-time keys that nobody claimed.")
            }
            write.forgetClaimedKeys(of: user, deviceID, but: Self.mostRemembered)
            write.addOneTimeKeys(oneTime, of: user, deviceID)
        }
        write.putFallbackKeys(fallback, of: user, deviceID)
        if !oneTime.isEmpty || !fallback.isEmpty { write.topics.append(.user(user)) }
    }

    /// What the requester's device is told of its own keys.
    public func counts(of requester: Requester) async throws -> DeviceKeyCounts {
        try await database.read { reader in
            try await self.database.keyCounts(of: requester.nid, requester.deviceID, reader)
        }
    }

    // MARK: - Claiming

    private struct Claim {
        let user: UserID
        let key: KeyClaim
    }

    /// Claims a key of each device that is asked for (`POST /keys/claim`): the oldest one-time key, which nobody else ever
    /// gets, or else the fallback key.
    ///
    /// - Parameter asked: a map from user ID to a map from device ID to algorithm.
    public func claim(_ asked: JSONView, timeout: Int64 = usualTimeout) async throws -> JSON {
        var wanted: [(user: UserID, deviceID: String, algorithm: String)] = []
        var remote: [ServerName: [UserID: [String: String]]] = [:]
        for (name, devices) in asked.members {
            guard let user = UserID(name) else { throw MatrixError.invalidParam("“\(name)” is not a user ID.") }
            guard devices.isObject else { throw MatrixError.badJSON("The devices of \(user) must be an object.") }
            for (deviceID, algorithm) in devices.members {
                guard let algorithm = algorithm.string else {
                    throw MatrixError.badJSON("The algorithm for a device of \(user) must be a string.")
                }
                wanted.append((user, deviceID, algorithm))
                if user.server != serverName {
                    remote[user.server, default: [:]][user, default: [:]][deviceID] = algorithm
                }
            }
        }
        guard wanted.count <= Self.mostAsked else {
            throw MatrixError.invalidParam("A request may claim \(Self.mostAsked) keys.")
        }
        let numbers = try await database.existingNumbers(ofUsers: wanted.map(\.user))
        let claims = wanted.compactMap { one -> Claim? in
            guard one.user.server == serverName, let nid = numbers[one.user] else { return nil }
            return Claim(
                user: one.user, key: KeyClaim(user: nid, deviceID: one.deviceID, algorithm: one.algorithm))
        }
        let others = await remoteDevices.claim(remote, timeout: Self.bounded(timeout))
        var result = others.keys
        for start in stride(from: 0, to: claims.count, by: Self.claimsPerWrite) {
            try await take(claims[start..<min(start + Self.claimsPerWrite, claims.count)], into: &result)
        }
        return [
            "one_time_keys": .object(
                JSONObject(result.sorted { $0.key < $1.key }.map { ($0.key.string, .object($0.value)) })),
            "failures": .object(JSONObject(others.failures.map { ($0.key.string, $0.value) })),
        ]
    }

    private func take(_ claims: ArraySlice<Claim>, into result: inout [UserID: JSONObject]) async throws {
        let left = try await take(claims, into: &result) { $0.takeOneTimeKeys($1) }
        if !left.isEmpty { _ = try await take(left[...], into: &result) { $0.useFallbackKeys($1) } }
    }

    /// - Parameter claim: has keys taken, and answers where they are among the rows of the write.
    /// - Returns: the claims for which there is no key.
    private func take(
        _ claims: ArraySlice<Claim>, into result: inout [UserID: JSONObject],
        by claim: (inout Write, [KeyClaim]) -> [Int]
    ) async throws -> [Claim] {
        var write = Write()
        let places = claim(&write, claims.map(\.key))
        // Their owners' devices are told what they have left.
        write.topics = Set(claims.map(\.key.user)).map { .user($0) }
        let rows = try await database.write(write).rows
        var left: [Claim] = []
        for (claim, place) in zip(claims, places) {
            guard let row = rows[place].first, let keyID = row[0].textValue, case .blob(let json) = row[1] else {
                left.append(claim)
                continue
            }
            result[claim.user, default: [:]][claim.key.deviceID] = ["\(claim.key.algorithm):\(keyID)": .raw(json)]
        }
        return left
    }
}

extension SQLValue {
    /// Text, which an engine may keep as bytes.
    fileprivate var textValue: String? {
        switch self {
        case .text(let text): text
        case .blob(let bytes): String(decoding: bytes, as: UTF8.self)
        default: nil
        }
    }
}
