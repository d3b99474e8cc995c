import Database
import MatrixCore
import Synchronization

/// What users have noted of their rooms: which are direct chats (`m.direct`), and their tags (`m.tag`). In memory as long as nothing of
/// the user's own changes.
final class RoomMarks: Sendable {
    private struct Direct: Sendable {
        var rooms: Set<RoomNID>
        var asOf: Int64
    }

    private struct Tags: Sendable {
        var tags: [RoomNID: Set<ByteString>]
        var asOf: Int64
    }

    private let database: Database
    private let activity: Activity
    /// The locks protect the caches; nothing is awaited while they are held. Counted in rooms.
    private let direct = Mutex(BoundedCache<UserNID, Direct>(capacity: 200_000))
    private let tagged = Mutex(BoundedCache<UserNID, Tags>(capacity: 100_000))

    /// Rooms of `m.direct` that count.
    private static let most = 10_000

    init(database: Database, activity: Activity) {
        self.database = database
        self.activity = activity
    }

    /// The rooms that are direct chats to a user.
    func directRooms(of user: UserNID) async throws -> Set<RoomNID> {
        if let known = direct.withLock({ $0[user] }), !activity.mayHaveChanged(user, after: known.asOf) {
            return known.rooms
        }
        let asOf = database.committedPosition
        var rooms: Set<RoomNID> = []
        if let content = try await database.accountData(of: user, room: nil, type: "m.direct"),
            let root = try? JSONDocument(parsing: content, limits: .own).root
        {
            let names = root.members.lazy.flatMap { $0.value.elements.compactMap { $0.string.flatMap { RoomID($0) } } }
            let known = Array(names.prefix(Self.most))
            rooms = try await database.read { Set(try await self.database.existingNumbers(ofRooms: known, $0)) }
        }
        let found = Direct(rooms: rooms, asOf: asOf)
        direct.withLock { $0.insert(found, for: user, size: 1 + found.rooms.count) }
        return rooms
    }

    /// The tags of a user's rooms, of those that have some.
    func tags(of user: UserNID) async throws -> [RoomNID: Set<ByteString>] {
        if let known = tagged.withLock({ $0[user] }), !activity.mayHaveChanged(user, after: known.asOf) {
            return known.tags
        }
        let asOf = database.committedPosition
        let all = try await database.read {
            try await self.database.accountDataOfRooms(of: user, type: "m.tag", $0)
        }
        var tags: [RoomNID: Set<ByteString>] = [:]
        for (room, content) in all {
            let names =
                (try? JSONDocument(parsing: content, limits: .own).root["tags"])?.members.map { ByteString($0.key) }
                ?? []
            if !names.isEmpty { tags[room] = Set(names) }
        }
        let found = Tags(tags: tags, asOf: asOf)
        tagged.withLock { $0.insert(found, for: user, size: 1 + found.tags.count) }
        return tags
    }
}
