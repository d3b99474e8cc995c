import Database
import MatrixCore

/// What this server is to other servers.
public final class FederationService: Sendable {
    public let inbox: FederationInbox
    public let events: EventServing
    public let memberships: MembershipServing
    public let thirdPartyInvites: ThirdPartyInvites
    public let isEnabled: Bool
    let rooms: FederatedRooms
    let client: FederationClient
    let keys: ServerKeyRing
    let sender: FederationSender
    let deviceKeys: DeviceKeyService
    private var context: RoomContext { rooms.context }
    private var database: Database { rooms.database }

    /// Milliseconds for which other servers may go by this one's keys without asking again.
    private static let keyLifetime: Int64 = 24 * 3_600_000

    init(
        rooms: FederatedRooms, client: FederationClient, keys: ServerKeyRing, sender: FederationSender,
        inbox: FederationInbox, events: EventServing, memberships: MembershipServing,
        thirdPartyInvites: ThirdPartyInvites, deviceKeys: DeviceKeyService, isEnabled: Bool
    ) {
        self.rooms = rooms
        self.client = client
        self.keys = keys
        self.sender = sender
        self.inbox = inbox
        self.events = events
        self.memberships = memberships
        self.thirdPartyInvites = thirdPartyInvites
        self.deviceKeys = deviceKeys
        self.isEnabled = isEnabled
    }

    /// All members of a room are known: what has waited for them can be taken up.
    func roomIsWhole(_ room: RoomNID) { inbox.roomIsWhole(room) }

    func start() async throws {
        guard isEnabled else { return }
        try await inbox.start()
        sender.start()
    }

    func stop() async {
        guard isEnabled else { return }
        inbox.stop()
        await sender.stop()
        await client.transport.close()
    }

    func note(_ commit: Commit) { if isEnabled { sender.note(commit) } }

    // MARK: - Who asks

    /// Checks that a request was signed by the server that it says it comes from (Server-Server API, "Request Authentication").
    ///
    /// - Parameters:
    ///   - target: path and query, as they were sent.
    ///   - content: the body; nil if there is none.
    ///   - mayAsk: throws if who sent it has had this server ask too many others for their keys.
    /// - Throws: `M_UNAUTHORIZED` if it wasn't.
    public func authenticate(
        _ headers: [String], method: String, target: String, content: JSONView?, mayAsk: () throws -> Void
    ) async throws -> ServerName {
        var reason = "The request is not signed: it has no Authorization header of the scheme X-Matrix."
        let signatures = headers.compactMap { RequestSignature(header: $0) }
        // One server signs, perhaps with several keys.
        for signature in signatures.prefix(Self.mostSignatures) where signature.origin == signatures[0].origin {
            if let destination = signature.destination, destination != context.serverName {
                reason = "The request is meant for \(destination), and this is \(context.serverName)."
                continue
            }
            guard signature.origin != context.serverName else {
                reason = "This server doesn't speak to itself."
                continue
            }
            if try await keys.wouldAskStranger(signature.origin) { try mayAsk() }
            guard let key = try await keys.key(signature.keyID, of: signature.origin, at: context.surroundings.now())
            else {
                reason = "The key \(signature.keyID) of \(signature.origin) can't be had."
                continue
            }
            guard signature.isValid(method: method, target: target, content: content, with: key) else {
                reason = "The signature of \(signature.origin) is wrong."
                continue
            }
            sender.hears(from: signature.origin)
            return signature.origin
        }
        throw MatrixError(.unauthorized, reason)
    }

    /// Signatures of a request that are looked at.
    private static let mostSignatures = 4

    // MARK: - Keys

    /// The keys of this server (`GET /_matrix/key/v2/server`).
    public func ownKeys() async throws -> JSON {
        var old: [(keyID: String, publicKey: [UInt8], expired: Int64)] = []
        for (stored, expired) in try await database.expiredSigningKeys() {
            let version = String(stored.keyID.dropFirst("ed25519:".count))
            guard let key = SigningKey(seed: stored.seed, version: version) else { continue }
            old.append((key.keyID, key.publicKey, expired))
        }
        return try ServerKeyDocument.make(
            for: context.serverName, validUntil: context.surroundings.now() + Self.keyLifetime, key: context.signingKey,
            old: old)
    }

    /// Servers whose keys may be asked for at once.
    private static let mostQueried = 100

    /// The keys of other servers, as far as this one knows them (`POST` and `GET /_matrix/key/v2/query`).
    ///
    /// - Parameters:
    ///   - asked: for each server until when its keys have to be good at least.
    ///   - mayAsk: throws if who asks has had this server ask too many others; then it answers what it has.
    public func keys(of asked: [ServerName: Int64], mayAsk: () throws -> Void) async throws -> JSON {
        guard asked.count <= Self.mostQueried else {
            throw MatrixError.invalidParam("A request may ask for the keys of \(Self.mostQueried) servers.")
        }
        var found: [JSON] = []
        for (server, minimum) in asked.sorted(by: { $0.key < $1.key }) {
            if server == context.serverName {
                found.append(try await ownKeys())
                continue
            }
            if try await keys.wouldAskStranger(server) { do { try mayAsk() } catch is MatrixError { continue } }
            if let document = try await keys.notarised(server, minimumValidUntil: minimum) { found.append(document) }
        }
        return ["server_keys": .array(found)]
    }

    // MARK: - Users

    /// What a user of this server shows (`GET /query/profile`): all, or one field.
    public func profile(
        of user: UserID, field: String?, _ profile: (UserID) async throws -> JSONObject
    ) async throws -> JSON {
        guard user.server == context.serverName else {
            throw MatrixError.notFound("\(user) is not a user of this server.")
        }
        let all = try await profile(user)
        guard let field else { return .object(all) }
        return all[field].map { [field: $0] } ?? [:]
    }

    /// The devices of a user of this server (`GET /user/devices/{userId}`).
    public func devices(of user: UserID, for server: ServerName) async throws -> JSON {
        guard user.server == context.serverName, let nid = try await database.existingNumber(ofUser: user)
        else {
            throw MatrixError.notFound("There is no user \(user).")
        }
        let servers = try await database.read { try await self.database.servers(sharingRoomsWith: nid, $0) }
        guard servers.contains(try await database.number(ofServer: server)) else {
            throw MatrixError.forbidden("\(user) shares no room with \(server).")
        }
        let answer = try await deviceKeys.publicKeys(of: [user: []])
        var devices: [JSON] = []
        for entry in answer["device_keys"]?[user.string]?.objectValue ?? [:] {
            var device: JSONObject = ["device_id": .string(entry.key), "keys": entry.value]
            let unsigned = try JSONDocument(parsing: entry.value.encoded(), limits: .own).root["unsigned"]
            if let name = unsigned?["device_display_name"] { device["device_display_name"] = name.json }
            devices.append(.object(device))
        }
        var list: JSONObject = [
            "user_id": .string(user.string), "devices": .array(devices),
            "stream_id": .integer(try await database.deviceListPosition(of: nid)),
        ]
        if let key = answer["master_keys"]?[user.string] { list["master_key"] = key }
        if let key = answer["self_signing_keys"]?[user.string] { list["self_signing_key"] = key }
        return .object(list)
    }

    /// Keys of users of this server (`POST /user/keys/query`).
    public func queryKeys(_ asked: JSONView) async throws -> JSON {
        var users: [UserID: [String]] = [:]
        for (name, devices) in asked.members.prefix(1_000) {
            guard let user = UserID(name), user.server == context.serverName else { continue }
            users[user] = devices.elements.compactMap(\.string)
        }
        return try await deviceKeys.publicKeys(of: users)
    }

    /// Claims keys of users of this server (`POST /user/keys/claim`).
    public func claimKeys(_ asked: JSONView) async throws -> JSON {
        var own = JSONObject()
        for (name, devices) in asked.members {
            if let user = UserID(name), user.server == context.serverName { own[name] = devices.json }
        }
        let document = try JSONDocument(parsing: JSON.object(own).encoded(), limits: .envelope)
        return ["one_time_keys": try await deviceKeys.claim(document.root)["one_time_keys"] ?? [:]]
    }
}
