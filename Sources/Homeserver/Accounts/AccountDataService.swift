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

    private static let tooMuch = MatrixError.tooLarge(
        "Your account data may have \(most) bytes together; remove some first.")

    private func put(_ type: String, _ content: [UInt8], in room: RoomNID?, for requester: Requester) async throws {
        var write = Write()
        write.putAccountData(of: requester.nid, room: room, type: type, content: content)
        // What makes it less is always allowed.
        let old = try await database.accountData(of: requester.nid, room: room, type: type)
        if content.count > old?.count ?? 0 { write.checkAccountData(of: requester.nid, within: Self.most) }
        do { try await database.write(write) } catch DatabaseError.conflict { throw Self.tooMuch }
    }

    // MARK: - Changes of a part

    /// Does what reads, changes and writes, anew where somebody else has written meanwhile: clients change several rules or tags at once.
    static func untilUndisturbed(_ work: () async throws -> Void) async throws {
        for _ in 0..<attempts {
            do { return try await work() } catch DatabaseError.conflict { continue }
        }
        throw MatrixError(.unknown, "This is being changed by somebody else; try again.", status: 503)
    }

    private static let attempts = 50

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
        let room = try await nid(roomID)
        try await Self.untilUndisturbed {
            let stored = try await database.storedAccountData(of: requester.nid, room: room, type: Self.tags)
            var tags = try stored.flatMap {
                try JSONDocument(parsing: $0.content, limits: .own).root["tags"]?.json.objectValue
            }
            tags = tags ?? [:]
            tags?[tag] = content
            let all = (["tags": .object(tags ?? [:])] as JSON).encoded()
            guard content == nil || all.count <= Self.largestTags else {
                throw MatrixError.tooLarge("All tags of a room may have \(Self.largestTags) bytes.")
            }
            var write = Write()
            write.replaceAccountData(stored, of: requester.nid, room: room, type: Self.tags, content: all)
            let more = all.count - (stored?.content.count ?? 0)
            if more > 0 { try await checkPlace(for: more, of: requester) }
            try await database.write(write)
        }
    }

    /// - Throws: `M_TOO_LARGE` if a user's account data would have more bytes than it may.
    private func checkPlace(for bytes: Int, of requester: Requester) async throws {
        guard try await database.accountDataBytes(of: requester.nid) + Int64(bytes) <= Self.most else {
            throw Self.tooMuch
        }
    }
}
