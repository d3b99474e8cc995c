import Database
import Synchronization

/// Which members of a room have push rules of their own, so that a message to a room where nobody has costs nothing.
final class RoomWatchers: Sendable {
    fileprivate struct Watchers {
        var users: Set<UserNID>
        /// Members of whom it has to be asked again.
        var doubtful: Set<UserNID> = []
        var isLoaded: Bool
        /// How many of ``Table/changed`` are counted in.
        var serial: Int
    }

    fileprivate struct Table {
        var rooms = BoundedCache<RoomNID, Watchers>(capacity: 1 << 20)
        /// Whose push rules have changed lately, and how many changes there were before.
        var changed: [UserNID] = []
        var first = 0
    }

    private let database: Database
    /// The lock protects the table; nothing is awaited while it is held.
    private let table = Mutex(Table())
    private static let mostChanges = 500
    private static let mostDoubtful = 200

    init(database: Database) { self.database = database }

    func note(_ topics: [Topic]) {
        table.withLock { table in
            var joined: [UserNID] = []
            var rooms: [RoomNID] = []
            for topic in topics {
                switch topic {
                case .pushRules(let user): table.changed.append(user)
                case .memberships(let user): joined.append(user)
                case .room(let room): rooms.append(room)
                case .everything: table.rooms.removeAll()
                default: break
                }
            }
            if table.changed.count > Self.mostChanges {
                let dropped = table.changed.count - Self.mostChanges / 2
                table.changed.removeFirst(dropped)
                table.first += dropped
            }
            guard !joined.isEmpty else { return }
            for room in rooms {
                guard var known = table.rooms[room] else { continue }
                known.doubtful.formUnion(joined)
                if known.doubtful.count > Self.mostDoubtful { table.rooms.remove(room) } else { table.put(known, room) }
            }
        }
    }

    /// The members of a room whose push rules are their own. Reads only what has changed.
    ///
    /// One at a time for each room: its queue sees to that.
    func watchers(of room: RoomNID, _ reader: any Reader) async throws -> Set<UserNID> {
        // Doubts are taken away before it is asked about them: those that arise meanwhile stay.
        let known: Watchers? = table.withLock { table in
            let serial = table.first + table.changed.count
            guard var known = table.rooms[room], known.serial >= table.first else {
                table.put(Watchers(users: [], isLoaded: false, serial: serial), room)
                return nil
            }
            guard known.isLoaded else { return nil }
            known.doubtful.formUnion(table.changed[(known.serial - table.first)...])
            var certain = known
            certain.doubtful = []
            certain.serial = serial
            table.put(certain, room)
            return known
        }
        do {
            guard let known else {
                let users = Set(try await database.membersWithPushRules(in: room, reader))
                table.withLock { table in
                    guard var loaded = table.rooms[room] else { return }
                    loaded.users = users
                    loaded.isLoaded = true
                    table.put(loaded, room)
                }
                return users
            }
            if known.doubtful.isEmpty { return known.users }
            let watching = try await database.membersWithPushRules(among: Array(known.doubtful), in: room, reader)
            let users = known.users.subtracting(known.doubtful).union(watching)
            table.withLock { table in
                guard var changed = table.rooms[room] else { return }
                changed.users = users
                table.put(changed, room)
            }
            return users
        } catch {
            table.withLock { $0.rooms.remove(room) }
            throw error
        }
    }
}

extension RoomWatchers.Table {
    fileprivate mutating func put(_ watchers: RoomWatchers.Watchers, _ room: RoomNID) {
        rooms.insert(watchers, for: room, size: 4 + watchers.users.count + watchers.doubtful.count)
    }
}
