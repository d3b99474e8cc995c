import Database
import MatrixCore

/// What clients keep for their user on the server (Client-Server API, modules "Client Config" and "Room Tagging").
public final class AccountDataService: Sendable {
    private let rooms: RoomRegistry
    private let pushRules: PushRuleService
    private var database: Database { rooms.database }

    init(rooms: RoomRegistry, pushRules: PushRuleService) {
        self.rooms = rooms
        self.pushRules = pushRules
    }

    /// Types that have an interface of their own, and can't be set by this one.
    private static let reserved: Set<String> = ["m.fully_read", "m.push_rules"]

    private func nid(_ roomID: RoomID?) async throws -> RoomNID? {
        guard let roomID else { return nil }
        guard let room = try await rooms.room(roomID) else {
            throw MatrixError.notFound("This server doesn't know the room.")
        }
        return room.nid
    }

    /// - Throws: `M_NOT_FOUND` if nothing has been set.
    public func get(_ type: String, in roomID: RoomID?, for requester: Requester) async throws -> [UInt8] {
        let room = try await nid(roomID)
        guard let content = try await database.accountData(of: requester.nid, room: room, type: type) else {
            throw MatrixError.notFound("There is no account data of this type.")
        }
        return try pushRules.shown(AccountDataEntry(room: room, type: type, content: content)).content
    }

    public func set(_ type: String, to content: JSONView, in roomID: RoomID?, for requester: Requester) async throws {
        guard !Self.reserved.contains(type) else {
            throw MatrixError(.badJSON, "\(type) is set by an endpoint of its own.", status: 405)
        }
        guard type.utf8.count <= 255 else {
            throw MatrixError.invalidParam("A type of account data has at most 255 bytes.")
        }
        try await put(type, content.json.encoded(), in: try await nid(roomID), for: requester)
    }

    /// Bytes of all account data of a user: the first sync of each device gets all of it.
    private static let most: Int64 = 32 << 20

    private func put(_ type: String, _ content: [UInt8], in room: RoomNID?, for requester: Requester) async throws {
        var write = Write()
        write.putAccountData(of: requester.nid, room: room, type: type, content: content)
        // What makes it less is always allowed.
        let old = try await database.accountData(of: requester.nid, room: room, type: type)
        if content.count > old?.count ?? 0 { write.checkAccountData(of: requester.nid, within: Self.most) }
        do { try await database.write(write) } catch DatabaseError.conflict {
            throw MatrixError.tooLarge("Your account data may have \(Self.most) bytes together; remove some first.")
        }
    }

    // MARK: - Tags

    private static let tags = "m.tag"
    /// Bytes of all tags of a room, which are read and written together.
    private static let largestTags = 256 << 10

    /// The tags of a room with their contents.
    public func tags(of roomID: RoomID, for requester: Requester) async throws -> JSONObject {
        guard let room = try await nid(roomID),
            let content = try await database.accountData(of: requester.nid, room: room, type: Self.tags)
        else { return [:] }
        return try JSONDocument(parsing: content, limits: .own).root["tags"]?.json.objectValue ?? [:]
    }

    /// Sets a tag of a room, or removes it (nil).
    public func setTag(_ tag: String, to content: JSON?, of roomID: RoomID, for requester: Requester) async throws {
        guard tag.utf8.count <= 255 else { throw MatrixError.invalidParam("A tag has at most 255 bytes.") }
        var tags = try await self.tags(of: roomID, for: requester)
        tags[tag] = content
        let all = (["tags": .object(tags)] as JSON).encoded()
        guard content == nil || all.count <= Self.largestTags else {
            throw MatrixError.tooLarge("All tags of a room may have \(Self.largestTags) bytes.")
        }
        try await put(Self.tags, all, in: try await nid(roomID), for: requester)
    }
}
