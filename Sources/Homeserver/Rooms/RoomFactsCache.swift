import Database
import MatrixCore
import Synchronization

/// What rooms are ordered and filtered by, in memory: an account's list of thousands of rooms is sorted without reading them.
final class RoomFactsCache: Sendable {
    private struct Entry: Sendable {
        var facts: RoomFacts
        /// Up to which position nothing else is known to hold.
        var asOf: Int64
    }

    private let rooms: RoomRegistry
    private let activity: Activity
    private var database: Database { rooms.database }

    /// The lock protects the cache; nothing is awaited while it is held.
    private let cache = Mutex(BoundedCache<RoomNID, Entry>(capacity: 200_000))

    init(rooms: RoomRegistry, activity: Activity) {
        self.rooms = rooms
        self.activity = activity
    }

    /// From so many unknown rooms on, all rooms of a user are asked for in one query.
    private static let many = 50

    /// The facts of a user's rooms. Asks the database for those that may have changed since they were asked for last.
    func facts(of numbers: [RoomNID], for user: UserNID) async throws -> [RoomNID: RoomFacts] {
        let entries = cache.withLock { cache in numbers.map { (room: $0, entry: cache[$0]) } }
        let outdated = activity.changed(entries.map { ($0.room, $0.entry?.asOf ?? -1) })
        var found: [RoomNID: RoomFacts] = [:]
        found.reserveCapacity(numbers.count)
        var missing: [RoomNID] = []
        for (room, entry) in entries {
            if let entry, !outdated.contains(room) { found[room] = entry.facts } else { missing.append(room) }
        }
        if missing.isEmpty { return found }
        let asOf = database.committedPosition
        let asked = missing
        var read = try await database.read { reader in
            asked.count >= Self.many
                ? try await self.database.facts(ofRoomsOf: user, reader)
                : try await self.database.facts(of: asked, reader)
        }
        for room in asked where read[room] == nil { read[room] = try await infer(room) }
        let all = read
        cache.withLock { cache in
            for room in asked {
                if let facts = all[room] { cache.insert(Entry(facts: facts, asOf: asOf), for: room, size: 1) }
            }
        }
        for room in asked { found[room] = all[room] }
        return found
    }

    /// The facts of a room in which nothing has happened since they are kept, as its events and state tell them.
    private func infer(_ number: RoomNID) async throws -> RoomFacts {
        let room = try await rooms.room(number)
        return try await database.read { reader in
            let numbers = try await self.database.timeline(
                of: number, from: .init(depth: .max, position: .max), backwards: true, limit: 50, reader)
            let events = try await self.database.events(numbers, reader)
            let newest = events.first?.position ?? 0
            let bumping = try await self.database.existingNumbers(ofTypes: Array(RoomFacts.bumpingTypes)).values
            let bump = events.first { bumping.contains($0.type) }?.position ?? newest
            let keys = try await self.database.existingNumbers(ofStateKeys: [.create, .encryption])
            let tree = StateTree(rows: self.database.stateRows, room: number)
            var type: String?
            if let key = keys[.create], let nid = try await tree.event(for: key, in: room.record.state, reader),
                let create = try await self.database.events([nid], reader).first
            {
                type = try self.rooms.context.parse(create, room.version).content["type"]?.string
            }
            var isEncrypted = false
            if let key = keys[.encryption] {
                isEncrypted = try await tree.event(for: key, in: room.record.state, reader) != nil
            }
            return RoomFacts(newest: max(newest, 0), bump: max(bump, 0), type: type, isEncrypted: isEncrypted)
        }
    }
}
