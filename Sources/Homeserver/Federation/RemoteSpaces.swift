import Database
import MatrixCore
import Synchronization

/// Rooms of spaces that only other servers know (Server-Server API, "Spaces").
final class RemoteSpaces: Sendable {
    let client: FederationClient
    private let surroundings: Surroundings

    /// A room as another server shows it.
    struct Entry: Sendable {
        let roomID: RoomID
        /// The summary with the children's state, as clients get it.
        let json: JSON
        let children: [SpaceHierarchy.Child]
        let joinRule: String
        let isWorldReadable: Bool
        /// Rooms whose members may know of it.
        let allowed: [RoomID]
    }

    private struct Known {
        var entries: [RoomID: Entry]
        /// Whether the server told what is below the room, too.
        var isWhole: Set<RoomID>
        var until: Int64
    }

    /// Answers are kept for a while, so that a walk's pages fit together. The lock protects the cache.
    private let answers = Mutex(BoundedCache<RoomID, Known>(capacity: 20_000))

    private static let memory: Int64 = 300_000
    private static let timeout: Int64 = 8_000
    private static let mostBytes = 4 << 20
    private static let mostServers = 3
    private static let mostChildren = 1_000

    init(client: FederationClient, surroundings: Surroundings) {
        self.client = client
        self.surroundings = surroundings
    }

    /// A room with what is below it; nil if no server tells of it.
    ///
    /// - Parameter parent: the space that named it: its server may have told of it already.
    func entry(of room: RoomID, via servers: [ServerName], below parent: RoomID?) async -> Entry? {
        let now = surroundings.now()
        if let known = answers.withLock({ $0[room] }), known.until > now { return known.entries[room] }
        if let parent, let known = answers.withLock({ $0[parent] }), known.until > now, let told = known.entries[room],
            told.json["room_type"]?.stringValue != "m.space"
        {
            return told
        }
        let chosen = servers.filter { !client.health.isResting($0) && $0 != client.serverName }
        for server in chosen.prefix(Self.mostServers) {
            let path = FederationClient.path(
                "/_matrix/federation/v1/hierarchy", room.string, query: [("suggested_only", "false")])
            guard
                let answer = try? await client.get(
                    path, from: server, timeout: Self.timeout, mostBytes: Self.mostBytes),
                let view = answer["room"], let own = Self.read(view), own.roomID == room
            else { continue }
            var known = Known(entries: [room: own], isWhole: [room], until: now + Self.memory)
            let named = Set(own.children.map(\.room))
            for child in answer["children"]?.elements.prefix(Self.mostChildren).map({ $0 }) ?? [] {
                if let entry = Self.read(child), named.contains(entry.roomID) { known.entries[entry.roomID] = entry }
            }
            answers.withLock { $0.insert(known, for: room, size: known.entries.count) }
            return own
        }
        return nil
    }

    /// What can be shown of a server's answer (A17).
    private static func read(_ view: JSONView) -> Entry? {
        guard let roomID = view["room_id"]?.string.flatMap({ RoomID($0) }), view["num_joined_members"]?.integer != nil
        else { return nil }
        var children: [SpaceHierarchy.Child] = []
        var states: [JSON] = []
        for event in view["children_state"]?.elements.prefix(mostChildren).map({ $0 }) ?? [] {
            guard event["type"]?.isString("m.space.child") == true,
                let child = event["state_key"]?.string.flatMap({ RoomID($0) }),
                let sender = event["sender"]?.string, UserID(sender) != nil, let content = event["content"],
                content.isObject, event["origin_server_ts"]?.integer != nil
            else { continue }
            let via = content["via"]?.elements.prefix(20).compactMap { $0.string.flatMap { ServerName($0) } } ?? []
            if via.isEmpty { continue }
            states.append(event.json)
            children.append(
                .init(room: child, via: via, isSuggested: content["suggested"]?.bool == true, json: event.json))
        }
        var json = JSONObject()
        for name in [
            "room_id", "name", "topic", "avatar_url", "canonical_alias", "join_rule", "room_type", "room_version",
            "encryption",
        ] {
            if let text = view[name]?.string { json[name] = .string(text) }
        }
        json["num_joined_members"] = view["num_joined_members"]?.json
        for name in ["world_readable", "guest_can_join"] { json[name] = .bool(view[name]?.bool ?? false) }
        let allowed =
            view["allowed_room_ids"]?.elements.prefix(100).compactMap { $0.string.flatMap { RoomID($0) } } ?? []
        if !allowed.isEmpty { json["allowed_room_ids"] = .array(allowed.map { .string($0.string) }) }
        json["children_state"] = .array(states)
        return Entry(
            roomID: roomID, json: .object(json), children: children,
            joinRule: view["join_rule"]?.string ?? "public", isWorldReadable: view["world_readable"]?.bool ?? false,
            allowed: allowed)
    }
}

extension SpaceHierarchy {
    /// What a room shows of itself (Client-Server API, "Room summaries"): one of this server's, or one that others tell of.
    ///
    /// - Parameter via: servers by which the room can be reached.
    /// - Throws: `M_NOT_FOUND` for rooms that nobody knows and for those that the requester may not know of.
    public func summary(of roomIDOrAlias: String, via: [ServerName], for requester: Requester?) async throws -> JSON {
        let none = MatrixError.notFound("There is no such room, or you may not know of it.")
        if requester == nil, let alias = RoomAlias(roomIDOrAlias), alias.server != rooms.context.serverName {
            throw none
        }
        let (roomID, servers) = try await directory.resolve(roomIDOrAlias)
        if let room = try await rooms.room(roomID), !room.record.extremities.isEmpty {
            return try await directory.summary(of: room, for: requester)
        }
        // Other servers are asked for users of this one alone.
        guard let requester else { throw none }
        var asked: [ServerName] = []
        // What one tells is remembered for all: the client's word comes last.
        for server in servers + [roomID.server].compactMap({ $0 }) + via where !asked.contains(server) {
            asked.append(server)
        }
        let room = try await rooms.room(roomID)
        if let entry = await remote.entry(of: roomID, via: asked, below: nil),
            try await isShown(entry, to: requester)
        {
            var json = entry.json
            json["children_state"] = nil
            var membership: StoredMembership?
            if let room { membership = try await database.membership(of: requester.nid, in: room.nid)?.membership }
            json["membership"] = .string((membership ?? .leave).name)
            return json
        }
        // Who is invited has what came with the invitation; it is no summary.
        throw none
    }

    /// What another server is told of a space (Server-Server API, `GET /hierarchy/{roomId}`).
    public func hierarchy(of space: RoomID, suggestedOnly: Bool, for server: ServerName) async throws -> JSON {
        guard let room = try await rooms.room(space), try await isShown(room, to: server) else {
            throw MatrixError.notFound("There is no such space, or your server may not know of it.")
        }
        var children: [JSON] = []
        var closed: [JSON] = []
        for child in try await self.children(of: room, suggestedOnly: suggestedOnly).prefix(Self.largestPage) {
            guard let below = try await rooms.room(child.room), !below.record.extremities.isEmpty else { continue }
            if try await isShown(below, to: server) {
                children.append(try await entry(of: below, suggestedOnly: suggestedOnly))
            } else {
                closed.append(.string(child.room.string))
            }
        }
        return [
            "room": try await entry(of: room, suggestedOnly: suggestedOnly), "children": .array(children),
            "inaccessible_children": .array(closed),
        ]
    }

    /// Whether a server may know of a room: one that anybody may know of, one that it is in, and one that lets the members of a room
    /// in that it is in.
    private func isShown(_ room: Room, to server: ServerName) async throws -> Bool {
        if room.record.extremities.isEmpty { return false }
        if try await directory.isShown(room, to: nil) { return true }
        let nid = try await database.number(ofServer: server)
        let rules = try await directory.contents(room, [.joinRules])[.joinRules]
        var open = [room]
        for roomID in DirectoryService.allowedRooms(rules) {
            if let other = try await rooms.room(roomID) { open.append(other) }
        }
        for room in open {
            let joined = try await database.joinedMembers(of: nid, in: room.nid)
            if joined > 0 { return true }
        }
        return false
    }
}
