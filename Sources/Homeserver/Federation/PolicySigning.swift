import Database
import Logging
import MatrixCore
import Synchronization

/// This server as the policy server of rooms that name it (Server-Server API, "Policy Servers"): it signs whatever the policy lists
/// that it goes by have nothing against (Client-Server API, "Moderation policy lists").
///
/// The key is one of its own, in the database: rooms name it, and it signs nothing else.
public final class PolicySigning: Sendable {
    private let rooms: FederatedRooms
    private let lists: [RoomID]
    private let key: SigningKey
    private let logger: Logger
    private var database: Database { rooms.database }
    private var context: RoomContext { rooms.context }

    private struct Compiled {
        let state: StateNID
        let rules: PolicyRules
    }

    /// The rules of each list as of its current state. The lock protects the table.
    private let compiled = Mutex<[RoomNID: Compiled]>([:])

    /// nil unless the settings want it.
    init?(_ settings: Configuration.PolicyServer, rooms: FederatedRooms, logger: Logger) async throws {
        guard settings.enabled else { return nil }
        self.rooms = rooms
        self.logger = logger
        lists = settings.lists
        let seed = try await rooms.database.setting(
            "policy_server_key", initial: rooms.context.surroundings.randomBytes(32))
        guard let key = SigningKey(seed: seed, version: "policy_server") else {
            throw DatabaseError.corrupt("the policy server's key is none")
        }
        self.key = key
    }

    /// What rooms name, in unpadded Base64.
    public var publicKey: String { Base64.encode(key.publicKey) }

    /// Signs an event that a server asks about.
    ///
    /// - Returns: the signature, as `POST /_matrix/policy/v1/sign` answers it.
    /// - Throws: `M_NOT_FOUND` for rooms that don't name this server, `M_BAD_JSON` for what is no event, `M_FORBIDDEN` (400) for what
    ///   isn't recommended, `M_FORBIDDEN` (403) if the room keeps the server out.
    public func sign(_ content: JSONView, for server: ServerName) async throws -> JSON {
        guard let roomID = content["room_id"]?.string.flatMap({ RoomID($0) }) else {
            throw MatrixError.badJSON("The event names no room.")
        }
        guard let room = try await rooms.rooms.room(roomID), try await rooms.isResident(room),
            let policy = RoomPolicy(event: try await rooms.state(.policy, of: room)),
            policy.server == context.serverName
        else { throw MatrixError.notFound("This server is not the room's policy server.") }
        guard try await rooms.allows(server, in: room) else {
            throw MatrixError.forbidden("The room's access control list keeps \(server) out.")
        }
        let event: Event
        do { event = try Event(receiving: Array(content.raw), version: room.version) } catch {
            throw MatrixError.badJSON("This is no event of room version \(room.version.identifier): \(error)")
        }
        let signed = try await self.signed(event)
        return [
            context.serverName.string: signed.root["signatures"]?[context.serverName.string]?.json.only(key.keyID)
                ?? [:]
        ]
    }

    /// The event with the signature of this policy server.
    ///
    /// - Throws: `M_FORBIDDEN` if it isn't recommended.
    func signed(_ event: Event) async throws -> Event {
        for list in lists {
            if try await rules(of: list).speakAgainst(event) {
                throw MatrixError(
                    .forbidden, "The room's policy server recommends against what \(event.sender) sends.", status: 400)
            }
        }
        return try event.addingSignature(by: key, as: context.serverName)
    }

    /// The rules of a list; none while this server isn't in its room.
    private func rules(of list: RoomID) async throws -> PolicyRules {
        guard let room = try await rooms.rooms.room(list), try await rooms.isResident(room) else {
            logger.warning(
                "a policy list can't be read, because nobody here is in its room", metadata: ["room": "\(list)"])
            return PolicyRules()
        }
        let state = room.record.state
        if let known = compiled.withLock({ $0[room.nid] }), known.state == state { return known.rules }
        let found = try await database.read { reader in
            let entries = try await StateTree(rows: self.database.stateRows, room: room.nid).entries(in: state, reader)
            let keys = try await self.database.stateKeys(entries.map(\.key))
            let wanted = entries.filter { keys[$0.key].map { PolicyRules.Kind(rawValue: $0.type) != nil } ?? false }
            return try await self.database.events(wanted.map(\.event), reader)
        }
        var rules = PolicyRules()
        for stored in found {
            let event = try context.parse(stored, room.version)
            guard let kind = PolicyRules.Kind(rawValue: event.type) else { continue }
            rules.add(kind, try context.shownContent(of: stored, room.version))
        }
        let all = rules
        compiled.withLock { $0[room.nid] = Compiled(state: state, rules: all) }
        return rules
    }
}

extension JSON {
    /// An object with one of its members alone.
    fileprivate func only(_ key: String) -> JSON { self[key].map { [key: $0] } ?? [:] }
}
