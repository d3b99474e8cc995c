import Database
import Synchronization

/// At which position each room and each user's own data changed last, as far back as this node has listened. With it a sync
/// that has nothing new to tell knows so without asking the database.
final class Activity: Sendable {
    private struct Table {
        var rooms: [RoomNID: Int64] = [:]
        var users: [UserNID: Int64] = [:]
        var memberships: [UserNID: Int64] = [:]
        /// When any list of devices changed last.
        var deviceLists: Int64 = 0
        /// When any profile changed last.
        var profiles: Int64 = 0
        /// What isn't listed has not changed since this position.
        var floor: Int64
    }

    /// The lock protects the table; nothing is awaited while it is held.
    private let table: Mutex<Table>
    /// Entries kept at most; then all is forgotten, and syncs from before ask the database.
    private static let most = 200_000

    init(position: Int64) { table = Mutex(Table(floor: position)) }

    func note(_ topics: [Topic], at position: Int64) {
        table.withLock { table in
            for topic in topics {
                switch topic {
                case .room(let room), .roomOf(let room, _): table.rooms[room] = position
                case .user(let user): table.users[user] = position
                case .memberships(let user): table.memberships[user] = position
                case .deviceList: table.deviceLists = position
                case .profile: table.profiles = position
                case .event, .deviceListIn, .pushRules, .presence, .destination: break
                case .everything: table = Table(floor: position)
                }
            }
            if table.rooms.count + table.users.count + table.memberships.count > Self.most {
                table = Table(floor: position)
            }
        }
    }

    /// What happened up to a position may not have been noted.
    func forget(before position: Int64) { table.withLock { $0.floor = max($0.floor, position) } }

    /// Which of the rooms may have changed after a position.
    func changed(_ rooms: [RoomNID], after position: Int64) -> Set<RoomNID> {
        table.withLock { table in
            if position < table.floor { return Set(rooms) }
            var changed: Set<RoomNID> = []
            for room in rooms { if let last = table.rooms[room], last > position { changed.insert(room) } }
            return changed
        }
    }

    /// Which of the rooms may have changed, each after a position of its own.
    func changed(_ rooms: [(room: RoomNID, after: Int64)]) -> Set<RoomNID> {
        table.withLock { table in
            var changed: Set<RoomNID> = []
            for (room, after) in rooms where after < table.floor || (table.rooms[room] ?? 0) > after {
                changed.insert(room)
            }
            return changed
        }
    }

    /// When a room changed last, if that was not after a position and is known.
    func lastChange(of room: RoomNID, upTo position: Int64) -> Int64? {
        table.withLock { table in table.rooms[room].flatMap { $0 <= position && $0 >= table.floor ? $0 : nil } }
    }

    /// Whether the user's own data may have changed after a position.
    func mayHaveChanged(_ user: UserNID, after position: Int64) -> Bool {
        table.withLock { table in position < table.floor || (table.users[user] ?? 0) > position }
    }

    /// Whether anybody's list of devices may have changed after a position.
    func deviceListsMayHaveChanged(after position: Int64) -> Bool {
        table.withLock { table in position < max(table.floor, table.deviceLists) }
    }

    /// Whether anybody's profile may have changed after a position.
    func profilesMayHaveChanged(after position: Int64) -> Bool {
        table.withLock { table in position < max(table.floor, table.profiles) }
    }

    /// When the user's memberships changed last, as far as is known: equal answers mean that they didn't in between.
    func lastMembershipChange(of user: UserNID) -> Int64 {
        table.withLock { table in max(table.memberships[user] ?? 0, table.floor) }
    }
}
