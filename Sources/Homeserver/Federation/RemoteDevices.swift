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
    /// Servers that are asked at the same time.
    private static let atOnce = 20

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
                let view = (try? JSONDocument(parsing: known))?.root
            {
                answer.users[user] = Self.keys(of: user, inListOf: view)
            } else {
                rest[user.server, default: []].append(user)
            }
        }
        let open = rest
        let found = await withTaskGroup(of: Answer.self) { group in
            var servers = open.keys.sorted()[...]
            func next() {
                guard let server = servers.popFirst() else { return }
                group.addTask { await self.ask(server, about: open[server] ?? [], numbers, timeout: timeout) }
            }
            for _ in 0..<Self.atOnce { next() }
            var all: [Answer] = []
            while let one = await group.next() {
                all.append(one)
                next()
            }
            return all
        }
        for one in found {
            answer.users.merge(one.users) { $1 }
            answer.failures.merge(one.failures) { $1 }
        }
        return answer
    }

    private func ask(
        _ server: ServerName, about users: [UserID], _ numbers: [UserID: UserNID], timeout: Int64
    ) async -> Answer {
        var answer = Answer()
        guard !client.health.isResting(server) else {
            answer.failures[server] = Self.failure("it could not be reached lately")
            return answer
        }
        do {
            var strangers: [UserID] = []
            for user in users {
                // Whose changes are told to this server, those are kept.
                guard let nid = numbers[user], try await database.sharesRooms(nid) else {
                    strangers.append(user)
                    continue
                }
                let path = FederationClient.path("/_matrix/federation/v1/user/devices", user.string)
                fetches.withLock { $0[nid, default: Fetch()].running += 1 }
                let list: JSONView
                do {
                    list = try await client.get(path, from: server, timeout: timeout, mostBytes: Self.mostBytes)
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
                answer.users[user] = Self.keys(of: user, inListOf: list)
            }
            if strangers.isEmpty { return answer }
            let asked = JSONObject(strangers.map { ($0.string, []) })
            let found = try await client.post(
                "/_matrix/federation/v1/user/keys/query", ["device_keys": .object(asked)], to: server,
                timeout: timeout, mostBytes: Self.mostBytes)
            for user in strangers { answer.users[user] = Self.keys(of: user, inQuery: found) }
        } catch {
            answer.failures[server] = Self.failure((error as? FederationFailure)?.reason ?? "\(error)")
        }
        return answer
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

    static func failure(_ reason: String) -> JSON {
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
    private static func keys(of user: UserID, inQuery answer: JSONView) -> Answer.Keys {
        var keys = Answer.Keys()
        for (id, device) in answer["device_keys"]?[user.string]?.members.prefix(mostDevices).map({ $0 }) ?? [] {
            if isOf(device, user, id) { keys.devices.append((id, device.json)) }
        }
        keys.master = crossSigningKey(answer["master_keys"]?[user.string], of: user)
        keys.selfSigning = crossSigningKey(answer["self_signing_keys"]?[user.string], of: user)
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
        await withTaskGroup(of: (ServerName, Result<JSONView, any Error>).self) { group in
            for (server, users) in wanted {
                group.addTask {
                    if self.client.health.isResting(server) {
                        return (
                            server,
                            .failure(FederationFailure(server: server, reason: "it could not be reached lately"))
                        )
                    }
                    var asked = JSONObject()
                    for (user, devices) in users {
                        asked[user.string] = .object(JSONObject(devices.map { ($0.key, .string($0.value)) }))
                    }
                    do {
                        return (
                            server,
                            .success(
                                try await self.client.post(
                                    "/_matrix/federation/v1/user/keys/claim", ["one_time_keys": .object(asked)],
                                    to: server, timeout: timeout, mostBytes: Self.mostBytes))
                        )
                    } catch { return (server, .failure(error)) }
                }
            }
            var keys: [UserID: JSONObject] = [:]
            var failures: [ServerName: JSON] = [:]
            for await (server, result) in group {
                switch result {
                case .failure(let error):
                    failures[server] = Self.failure((error as? FederationFailure)?.reason ?? "\(error)")
                case .success(let answer):
                    for (user, devices) in wanted[server] ?? [:] {
                        let found = answer["one_time_keys"]?[user.string]
                        for device in devices.keys {
                            guard let key = found?[device], key.isObject else { continue }
                            keys[user, default: [:]][device] = key.json
                        }
                    }
                }
            }
            return (keys, failures)
        }
    }
}
