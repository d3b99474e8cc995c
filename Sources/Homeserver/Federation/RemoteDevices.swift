import Database
import MatrixCore
import Synchronization

/// Keys of users of other servers (Server-Server API, "End-to-End Encryption", "Device Management"): fetched when somebody asks
/// for them, and kept until their server says that they are others now.
final class RemoteDevices: Sendable {
    private let database: Database
    private let client: FederationClient
    private let surroundings: Surroundings

    private struct Fetch {
        var running = 0
        /// The devices have changed since it began.
        var isOutdated = false
    }

    /// Lists that are on their way. The lock protects the table; nothing is awaited while it is held.
    private let fetches = Mutex<[UserNID: Fetch]>([:])

    private static let mostDevices = 1_000
    private static let mostBytes = 4 << 20

    init(database: Database, client: FederationClient, surroundings: Surroundings) {
        self.database = database
        self.client = client
        self.surroundings = surroundings
    }

    /// A server says that a user's devices have changed.
    func changed(_ user: UserID) async throws {
        // Of somebody who was never seen here there is nothing that could have changed.
        guard let nid = try await database.existingNumber(ofUser: user) else { return }
        fetches.withLock { $0[nid]?.isOutdated = true }
        var write = Write()
        write.dropRemoteDevices(of: nid)
        if try await database.sharesRooms(nid) {
            write.changeDeviceList(of: nid)
            try await database.announceDevices(of: nid, in: &write)
        }
        try await database.write(write)
    }

    /// What a server says of its users' keys.
    struct Answer: Sendable {
        /// For each user the devices by their IDs, and the cross-signing keys.
        var users: [UserID: Keys] = [:]
        /// Why nothing is said of others.
        var failures: [ServerName: JSON] = [:]

        struct Keys: Sendable {
            var devices: [(id: String, keys: JSON)] = []
            var master: JSON?
            var selfSigning: JSON?
        }
    }

    /// The keys of users of other servers; servers that don't answer in time are named.
    func keys(of users: [UserID], timeout: Int64) async throws -> Answer {
        var answer = Answer()
        var rest: [ServerName: [UserID]] = [:]
        let numbers = try await database.existingNumbers(ofUsers: users)
        for user in users {
            if let nid = numbers[user], let known = try await database.remoteDevices(of: nid),
                let view = (try? JSONDocument(parsing: known, limits: .envelope))?.root
            {
                answer.users[user] = Self.keys(of: user, inListOf: view)
            } else {
                rest[user.server, default: []].append(user)
            }
        }
        let open = rest
        let found = Mutex(answer)
        let servers = open.keys.sorted()
        let inquiry = Inquiry(surroundings: surroundings, deadline: surroundings.now() + timeout)
        let answered = await inquiry.ask(servers) { server in
            do {
                try await self.ask(server, about: open[server] ?? [], numbers, inquiry) { user, keys in
                    found.withLock { $0.users[user] = keys }
                }
            } catch { found.withLock { $0.failures[server] = Self.failure(error) } }
        }
        return found.withLock { found in
            for server in servers where !answered.contains(server) { found.failures[server] = Self.late }
            return found
        }
    }

    /// Asks a server for users' keys, and tells of each user's as soon as they are there.
    private func ask(
        _ server: ServerName, about users: [UserID], _ numbers: [UserID: UserNID], _ inquiry: Inquiry,
        _ tell: (UserID, Answer.Keys) -> Void
    ) async throws {
        try checkIsAwake(server)
        var strangers: [UserID] = []
        for user in users {
            // Whose changes are told to this server, those are kept.
            guard let nid = numbers[user], try await database.sharesRooms(nid) else {
                strangers.append(user)
                continue
            }
            guard inquiry.isOpen else { throw FederationFailure(server: server, reason: Self.lateness) }
            let path = FederationClient.path("/_matrix/federation/v1/user/devices", user.string)
            fetches.withLock { $0[nid, default: Fetch()].running += 1 }
            let list: JSONView
            do {
                list = try await client.get(path, from: server, timeout: inquiry.timeLeft, mostBytes: Self.mostBytes)
            } catch {
                _ = finish(nid)
                throw error
            }
            // Of a list that changed while it came nobody knows whether the change is in it.
            if finish(nid) {
                var write = Write()
                write.putRemoteDevices(Array(list.raw), of: nid, at: surroundings.now())
                try await database.write(write)
            }
            tell(user, Self.keys(of: user, inListOf: list))
        }
        if strangers.isEmpty { return }
        guard inquiry.isOpen else { throw FederationFailure(server: server, reason: Self.lateness) }
        let asked = JSONObject(strangers.map { ($0.string, []) })
        let found = try await client.post(
            "/_matrix/federation/v1/user/keys/query", ["device_keys": .object(asked)], to: server,
            timeout: inquiry.timeLeft, mostBytes: Self.mostBytes)
        // A server's answer may have any number of members, and is looked through once.
        let parts = ["device_keys", "master_keys", "self_signing_keys"].map { Self.byKey(found[$0]) }
        for user in strangers {
            let name = ByteString(user.string)
            tell(
                user, Self.keys(of: user, devices: parts[0][name], master: parts[1][name], selfSigning: parts[2][name]))
        }
    }

    private func checkIsAwake(_ server: ServerName) throws {
        guard !client.health.isResting(server) else {
            throw FederationFailure(server: server, reason: "it could not be reached lately")
        }
    }

    /// - Returns: whether what has come is as good as it was when it was asked for.
    private func finish(_ user: UserNID) -> Bool {
        fetches.withLock { fetches in
            guard var fetch = fetches[user] else { return false }
            fetch.running -= 1
            fetches[user] = fetch.running == 0 ? nil : fetch
            return !fetch.isOutdated
        }
    }

    private static let lateness = "it didn't answer in time"
    private static let late = failure(lateness)

    private static func failure(_ error: any Error) -> JSON {
        failure((error as? FederationFailure)?.reason ?? "\(error)")
    }

    private static func failure(_ reason: String) -> JSON {
        ["errcode": "M_UNKNOWN", "error": .string("The server can't be asked: \(reason).")]
    }

    /// Server-Server API, `GET /user/devices/{userId}`.
    private static func keys(of user: UserID, inListOf list: JSONView) -> Answer.Keys {
        var keys = Answer.Keys()
        for device in list["devices"]?.elements.prefix(mostDevices).map({ $0 }) ?? [] {
            guard let id = device["device_id"]?.string, let own = device["keys"], isOf(own, user, id) else { continue }
            var json = own.json
            json["unsigned"] = device["device_display_name"]?.string.map { ["device_display_name": .string($0)] } ?? [:]
            keys.devices.append((id, json))
        }
        keys.master = crossSigningKey(list["master_key"], of: user)
        keys.selfSigning = crossSigningKey(list["self_signing_key"], of: user)
        return keys
    }

    /// Server-Server API, `POST /user/keys/query`.
    private static func byKey(_ object: JSONView?) -> [ByteString: JSONView] {
        Dictionary(object?.members.map { (ByteString($0.key), $0.value) } ?? []) { $1 }
    }

    private static func keys(
        of user: UserID, devices: JSONView?, master: JSONView?, selfSigning: JSONView?
    ) -> Answer.Keys {
        var keys = Answer.Keys()
        for (id, device) in devices?.members.prefix(mostDevices).map({ $0 }) ?? [] where isOf(device, user, id) {
            keys.devices.append((id, device.json))
        }
        keys.master = crossSigningKey(master, of: user)
        keys.selfSigning = crossSigningKey(selfSigning, of: user)
        return keys
    }

    /// Keys that name somebody else, or can't be read, are nobody's (A17).
    private static func isOf(_ keys: JSONView, _ user: UserID, _ device: String) -> Bool {
        keys.isObject && keys["user_id"]?.isString(user.string) == true && keys["device_id"]?.isString(device) == true
            && keys["keys"]?.isObject == true && keys["algorithms"]?.isArray == true
            && keys["signatures"]?.isObject == true
    }

    private static func crossSigningKey(_ key: JSONView?, of user: UserID) -> JSON? {
        guard let key, key["user_id"]?.isString(user.string) == true, key["keys"]?.isObject == true,
            key["usage"]?.isArray == true
        else { return nil }
        return key.json
    }

    /// Claims one-time keys at other servers (Server-Server API, `POST /user/keys/claim`).
    ///
    /// - Parameter wanted: for each server, user and device the algorithm.
    func claim(
        _ wanted: [ServerName: [UserID: [String: String]]], timeout: Int64
    ) async -> (keys: [UserID: JSONObject], failures: [ServerName: JSON]) {
        let found = Mutex<(keys: [UserID: JSONObject], failures: [ServerName: JSON])>(([:], [:]))
        let servers = wanted.keys.sorted()
        let inquiry = Inquiry(surroundings: surroundings, deadline: surroundings.now() + timeout)
        let answered = await inquiry.ask(servers) { server in
            do {
                let claimed = try await self.claim(wanted[server] ?? [:], at: server, inquiry)
                found.withLock { $0.keys.merge(claimed) { $1 } }
            } catch { found.withLock { $0.failures[server] = Self.failure(error) } }
        }
        return found.withLock { found in
            for server in servers where !answered.contains(server) { found.failures[server] = Self.late }
            return found
        }
    }

    private func claim(
        _ wanted: [UserID: [String: String]], at server: ServerName, _ inquiry: Inquiry
    ) async throws -> [UserID: JSONObject] {
        try checkIsAwake(server)
        let asked = JSONObject(
            wanted.map { user, devices in
                (user.string, .object(JSONObject(devices.map { ($0.key, .string($0.value)) })))
            })
        let answer = try await client.post(
            "/_matrix/federation/v1/user/keys/claim", ["one_time_keys": .object(asked)], to: server,
            timeout: inquiry.timeLeft, mostBytes: Self.mostBytes)
        var keys: [UserID: JSONObject] = [:]
        let byUser = Self.byKey(answer["one_time_keys"])
        for (user, devices) in wanted {
            let found = byUser[ByteString(user.string)].map { Self.byKey($0) }
            for device in devices.keys {
                guard let key = found?[ByteString(device)], key.isObject else { continue }
                keys[user, default: [:]][device] = key.json
            }
        }
        return keys
    }
}
