import MatrixCore

extension Database {
    private static let find = Statement("SELECT room_nid, creator_nid FROM room_aliases WHERE alias = $1")
    private static let ofRoom = Statement("SELECT alias FROM room_aliases WHERE room_nid = $1 ORDER BY alias")

    /// The room that an alias of this server points to, and who made the alias.
    public func room(ofAlias alias: RoomAlias) async throws -> (room: RoomNID, creator: UserNID)? {
        try await readOnce { reader in
            try await reader.first(Self.find, [.identifier(alias.string)]) {
                (RoomNID($0.integer(0)), UserNID($0.integer(1)))
            }
        }
    }

    public func aliases(of room: RoomNID) async throws -> [RoomAlias] {
        try await readOnce { try await $0.query(Self.ofRoom, [room.value]) { RoomAlias(unchecked: $0.text(0)) } }
    }
}

extension Write {
    private static let insertAlias = Statement(
        "INSERT INTO room_aliases (alias, room_nid, creator_nid, created_ts) VALUES ($1, $2, $3, $4)")
    private static let deleteAlias = Statement("DELETE FROM room_aliases WHERE alias = $1")

    /// Adds an alias; fails as a constraint if it is taken.
    public mutating func addAlias(_ alias: RoomAlias, to room: RoomNID, by user: UserNID, at time: Int64) {
        run(Self.insertAlias, .identifier(alias.string), room.value, user.value, .integer(time))
    }

    public mutating func removeAlias(_ alias: RoomAlias) {
        expect(1, otherwise: "the alias is gone", Self.deleteAlias, .identifier(alias.string))
    }
}

extension Write {
    private static let publishRoom = Statement(
        "INSERT INTO published_rooms (room_nid) VALUES ($1) ON CONFLICT DO NOTHING")

    /// Lists a room in the public directory.
    public mutating func publish(_ room: RoomNID) { run(Self.publishRoom, room.value) }
}

extension Write {
    private static let unpublishRoom = Statement("DELETE FROM published_rooms WHERE room_nid = $1")

    /// Takes a room off the public directory.
    public mutating func unpublish(_ room: RoomNID) { run(Self.unpublishRoom, room.value) }
}

extension Database {
    private static let published = Statement("SELECT room_nid FROM published_rooms ORDER BY room_nid")
    private static let ofNetwork = Statement(
        "SELECT room_nid FROM network_rooms WHERE appservice_id = $1 AND network_id = $2 ORDER BY room_nid")
    private static let all = Statement(
        "SELECT room_nid FROM published_rooms UNION SELECT room_nid FROM network_rooms ORDER BY room_nid")

    /// The rooms of a list of the public directory.
    public func publishedRooms(_ lists: PublishedLists) async throws -> [RoomNID] {
        try await read { reader in
            let decode: (any Row) -> RoomNID = { RoomNID($0.integer(0)) }
            switch lists {
            case .own: return try await reader.query(Self.published, [], decode)
            case .all: return try await reader.query(Self.all, [], decode)
            case .network(let network, let appservice):
                return try await reader.query(Self.ofNetwork, [.text(appservice), .text(network)], decode)
            }
        }
    }
}

/// Lists of the public directory.
public enum PublishedLists: Sendable, Hashable {
    /// The server's own.
    case own
    /// That of a network which an application service connects.
    case network(String, of: String)
    case all
}

extension Write {
    private static let publishForNetwork = Statement(
        """
        INSERT INTO network_rooms (appservice_id, network_id, room_nid) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
        """)
    private static let unpublishForNetwork = Statement(
        "DELETE FROM network_rooms WHERE appservice_id = $1 AND network_id = $2 AND room_nid = $3")

    /// Lists a room for a network that an application service connects.
    public mutating func publish(_ room: RoomNID, for network: String, of appservice: String) {
        run(Self.publishForNetwork, .text(appservice), .text(network), room.value)
    }

    public mutating func unpublish(_ room: RoomNID, for network: String, of appservice: String) {
        run(Self.unpublishForNetwork, .text(appservice), .text(network), room.value)
    }
}

extension Write {
    private static let moveOne = Statement("UPDATE room_aliases SET room_nid = $2 WHERE alias = $1")

    /// Has an alias point to another room.
    public mutating func moveAlias(_ alias: RoomAlias, to room: RoomNID) {
        run(Self.moveOne, .identifier(alias.string), room.value)
    }
}
