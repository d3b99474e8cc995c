import Database
import MatrixCore
import Synchronization

/// Who is typing where (Client-Server API, "Typing Notifications"). Kept in memory only, on each node of the database; each
/// change has a number, by which syncs know what they have told.
public final class Typing: Sendable {
    private struct RoomState {
        /// Until when each of them is typing.
        var users: [UserID: Int64] = [:]
        /// The number of the last change.
        var serial: Int64 = 0
    }

    private struct Table {
        var rooms: [RoomNID: RoomState] = [:]
    }

    /// The lock protects the table; nothing is awaited while it is held.
    private let table = Mutex(Table())
    private let database: Database
    private let notifier: Notifier
    private let surroundings: Surroundings
    private let serial: EphemeralSerial

    /// The longest time a client may ask for, in milliseconds.
    static let longest: Int64 = 120_000

    init(database: Database, notifier: Notifier, surroundings: Surroundings, serial: EphemeralSerial) {
        self.database = database
        self.serial = serial
        self.notifier = notifier
        self.surroundings = surroundings
    }

    /// A user is typing for so many milliseconds, or has stopped (nil): that is noted, and told to the other nodes.
    func set(_ user: UserID, in room: RoomNID, for milliseconds: Int64?) async throws {
        note(user, in: room, for: milliseconds)
        guard database.engine.isShared else { return }
        var write = Write()
        let time = milliseconds.map { min(max($0, 1), Self.longest) } ?? 0
        write.topics = [.typing(room, try await database.number(ofUser: user), time)]
        try await database.write(write)
    }

    /// Notes the same on this node.
    func note(_ user: UserID, in room: RoomNID, for milliseconds: Int64?) {
        let now = surroundings.now()
        let changed = table.withLock { table in
            var state = table.rooms[room] ?? RoomState()
            let was = state.users[user] != nil
            state.users[user] = milliseconds.map { now + min(max($0, 0), Self.longest) }
            if was != (milliseconds != nil) {
                state.serial = serial.next()
            }
            table.rooms[room] = state
            return was != (milliseconds != nil)
        }
        if changed { notifier.publish([.room(room)]) }
        if let milliseconds {
            _ = surroundings.after(min(max(milliseconds, 0), Self.longest) + 1) { [weak self] in self?.expire() }
        }
    }

    /// A user has left the room.
    func left(_ user: UserID, _ room: RoomNID) async throws {
        if table.withLock({ $0.rooms[room]?.users[user] != nil }) { try await set(user, in: room, for: nil) }
    }

    /// Ends what has run out of time.
    private func expire() {
        let now = surroundings.now()
        let changed = table.withLock { table in
            var changed: [RoomNID] = []
            for (room, state) in table.rooms {
                let left = state.users.filter { $0.value > now }
                if left.count == state.users.count { continue }
                table.rooms[room] = RoomState(users: left, serial: serial.next())
                changed.append(room)
            }
            return changed
        }
        notifier.publish(changed.map { .room($0) })
    }

    /// Those who type in a room, if that has changed since a number; nil if it hasn't.
    func users(in room: RoomNID, changedSince serial: Int64) -> [UserID]? {
        table.withLock { table in
            guard let state = table.rooms[room], state.serial > serial else { return nil }
            // Somebody who began after the token is told; that nobody types, only to those who may think so.
            return state.users.keys.sorted()
        }
    }

    /// The rooms in which it has changed since a number who types, and who does.
    func rooms(changedSince serial: Int64) -> [RoomNID: [UserID]] {
        table.withLock { table in
            table.rooms.filter { $0.value.serial > serial }.mapValues { $0.users.keys.sorted() }
        }
    }
}
