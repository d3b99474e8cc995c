import Database
import MatrixCore

/// The keys of devices (Client-Server API, "Key management API"): devices upload theirs, others ask for them and claim those
/// for one use.
public final class DeviceKeyService: Sendable {
    let database: Database
    let serverName: ServerName
    /// Unclaimed one-time keys that a device may have; clients of today have a hundred at most. Those that were handed out stand in the
    /// way of a claim until the next upload.
    static let mostOneTimeKeys = 1_000
    /// Keys that were handed out and are remembered, so that they are not taken again: those of the largest upload, which may be
    /// repeated.
    private static let mostRemembered = UploadedKeys.mostInRequest
    /// How often an upload is tried that another one of the same device comes before.
    private static let attempts = 5
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
    /// - Throws: `M_INVALID_PARAM` if a one-time key of that name is there already and is another one; `M_LIMIT_EXCEEDED` if the device
    ///   uploads too many at the same time.
    public func upload(_ body: JSONView, for requester: Requester) async throws -> [String: Int] {
        let deviceKeys = try body.optionalObject("device_keys").map {
            try UploadedKeys.deviceKeys($0, of: requester.userID, requester.deviceID)
        }
        let oneTime = try body.optionalObject("one_time_keys").map { try UploadedKeys.publicKeys($0) } ?? []
        let fallback = try body.optionalObject("fallback_keys").map { try UploadedKeys.publicKeys($0) } ?? []
        for _ in 0..<Self.attempts {
            var write = Write()
            if let deviceKeys { try await setDeviceKeys(deviceKeys, of: requester, in: &write) }
            let counts = try await add(oneTime, fallback, of: requester, in: &write)
            do {
                if !write.isEmpty { try await database.write(write) }
                return counts
            } catch DatabaseError.conflict {
                // Other keys of the device have come meanwhile, or it is gone.
            }
        }
        guard
            try await database.deviceIDs(of: requester.nid).contains(where: { $0.hasSameBytes(as: requester.deviceID) })
        else { throw MatrixError.unknownToken() }
        throw MatrixError.limitExceeded(retryAfterMS: 1_000)
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
        try? JSONDocument(parsing: json, limits: .own).root.canonical(omitting: ["signatures", "unsigned"])
    }

    /// Adds one-time and fallback keys of the requester's device.
    ///
    /// - Returns: the unclaimed one-time keys that the device has then, by algorithm.
    private func add(
        _ oneTime: [PublicKey], _ fallback: [PublicKey], of requester: Requester, in write: inout Write
    ) async throws -> [String: Int] {
        try Self.putFallbackKeys(fallback, of: requester.nid, requester.deviceID, in: &write)
        let (pool, sorted) = try await database.read { reader in
            let pool = try await self.database.oneTimeKeys(of: requester.nid, requester.deviceID, reader)
            let sorted = try await self.database.sort(
                oneTime, by: pool, of: requester.nid, requester.deviceID, reader)
            return (pool, sorted)
        }
        if let different = sorted.different {
            throw MatrixError.invalidParam(
                "There is another one-time key named \(different.algorithm):\(different.keyID) already.")
        }
        var counts = pool.unclaimed
        for key in sorted.new { counts[key.algorithm, default: 0] += 1 }
        guard sorted.new.isEmpty || counts.values.reduce(0, +) <= Self.mostOneTimeKeys else {
            throw MatrixError.invalidParam(
                "A device may have \(Self.mostOneTimeKeys) one-time keys that nobody claimed.")
        }
        if !sorted.new.isEmpty {
            write.addOneTimeKeys(
                sorted.new, to: pool, of: requester.nid, requester.deviceID, remembering: Self.mostRemembered)
        }
        if !sorted.new.isEmpty || !fallback.isEmpty { write.topics.append(.user(requester.nid)) }
        return counts
    }

    /// Sets fallback keys of a device, one for each algorithm.
    static func putFallbackKeys(
        _ keys: [PublicKey], of user: UserNID, _ deviceID: String, in write: inout Write
    ) throws {
        guard Set(keys.map { ByteString($0.algorithm) }).count == keys.count else {
            throw MatrixError.invalidParam("There may be one fallback key for each algorithm.")
        }
        write.putFallbackKeys(keys, of: user, deviceID)
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
            guard let key = rows[place].first.flatMap({ ClaimedKey(row: $0) }) else {
                left.append(claim)
                continue
            }
            result[claim.user, default: [:]][claim.key.deviceID] = [
                "\(claim.key.algorithm):\(key.keyID)": .raw(key.json)
            ]
        }
        return left
    }
}
