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
        /// In which rooms something happened, in the order of positions, from behind a position on.
        var log: [(position: Int64, room: RoomNID)] = []
        var logFloor: Int64
        /// Everything up to here is noted.
        var latest: Int64

        init(floor: Int64) {
            self.floor = floor
            logFloor = floor
            latest = floor
        }

        mutating func note(_ room: RoomNID, _ position: Int64) {
            rooms[room] = position
            log.append((position, room))
        }
    }

    /// The lock protects the table; nothing is awaited while it is held.
    private let table: Mutex<Table>
    /// Entries kept at most; then all is forgotten, and syncs from before ask the database.
    private static let most = 200_000
    /// Changes of rooms that are kept in their order, and those that are gone through at most.
    private static let mostLogged = 20_000
    private static let mostChanges = 500

    init(position: Int64) { table = Mutex(Table(floor: position)) }

    func note(_ topics: [Topic], at position: Int64) {
        table.withLock { table in
            for topic in topics {
                switch topic {
                case .room(let room), .roomOf(let room, _): table.note(room, position)
                case .user(let user): table.users[user] = position
                case .memberships(let user): table.memberships[user] = position
                case .deviceList: table.deviceLists = position
                case .profile: table.profiles = position
                case .event, .deviceListIn, .pushRules, .presence, .destination, .receipts, .typing: break
                case .everything: table = Table(floor: position)
                }
            }
            table.latest = max(table.latest, position)
            if table.log.count > Self.mostLogged {
                let gone = table.log.count / 2
                table.logFloor = table.log[gone - 1].position
                table.log.removeFirst(gone)
            }
            if table.rooms.count + table.users.count + table.memberships.count > Self.most {
                table = Table(floor: position)
            }
        }
    }

    /// What happened up to a position may not have been noted.
    func forget(before position: Int64) {
        table.withLock { table in
            table.floor = max(table.floor, position)
            table.logFloor = max(table.logFloor, position)
            table.latest = max(table.latest, position)
        }
    }

    /// The position up to which everything is noted.
    var latest: Int64 { table.withLock { $0.latest } }

    /// In which rooms something has happened after a position, and up to where that is known; nil if it goes too far back.
    func changes(after position: Int64) -> (rooms: [RoomNID], upTo: Int64)? {
        table.withLock { table in
            guard position >= max(table.floor, table.logFloor) else { return nil }
            var rooms: [RoomNID] = []
            for entry in table.log.reversed() {
                if entry.position <= position { break }
                if rooms.count == Self.mostChanges { return nil }
                rooms.append(entry.room)
            }
            return (rooms, table.latest)
        }
    }

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

    /// When each of the rooms changed last: at the position, or before it if it is the one from which on this node has listened.
    func lastChanges(of rooms: [RoomNID]) -> [RoomNID: Int64] {
        table.withLock { table in
            var changes: [RoomNID: Int64] = [:]
            changes.reserveCapacity(rooms.count)
            for room in rooms { changes[room] = max(table.rooms[room] ?? 0, table.floor) }
            return changes
        }
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
