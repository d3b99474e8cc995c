import Database
import Synchronization

/// Wakes the syncs that wait for something. Nothing polls: a waiting sync is an entry in a table.
public final class Notifier: Sendable {
    /// A sync that waits. What happens between its registration and its waiting is not lost.
    final class Waiter: Sendable {
        fileprivate let user: UserNID
        fileprivate let rooms: Set<RoomNID>
        private let state = Mutex(State())

        private struct State {
            var isWoken = false
            var wake: (@Sendable () -> Void)?
        }

        fileprivate init(user: UserNID, rooms: Set<RoomNID>) {
            self.user = user
            self.rooms = rooms
        }

        func wake() {
            let wake = state.withLock { state in
                state.isWoken = true
                defer { state.wake = nil }
                return state.wake
            }
            wake?()
        }

        /// Has something called, once, when something has happened since the registration: at once, if it has already.
        ///
        /// - Parameter wake: nil: nothing any more.
        func whenWoken(_ wake: (@Sendable () -> Void)?) {
            let isWoken = state.withLock { state in
                state.wake = state.isWoken ? nil : wake
                return state.isWoken
            }
            if isWoken { wake?() }
        }

        /// Returns when something has happened since the registration, or so many milliseconds have passed.
        ///
        /// - Throws: `CancellationError` if the task is cancelled meanwhile.
        func wait(atMost milliseconds: Int64, by surroundings: Surroundings) async throws {
            let cancel = surroundings.after(milliseconds) { self.wake() }
            await wait()
            cancel()
            try Task.checkCancellation()
        }

        /// Returns when something has happened since the registration, or the task is cancelled.
        func wait() async {
            await withTaskCancellationHandler {
                await withCheckedContinuation { continuation in whenWoken { continuation.resume() } }
            } onCancel: {
                wake()
            }
        }
    }

    /// A user who waits, or has waited a moment ago: most ask again at once, with the same rooms.
    private struct Listener {
        var waiters: [ObjectIdentifier: Waiter] = [:]
        /// Where the table has the user among a room's listeners: at least the rooms of all waiters.
        var rooms: Set<RoomNID> = []
    }

    private struct Table {
        var listeners: [UserNID: Listener] = [:]
        /// Who is to be looked at when something happens in a room.
        var byRoom: [RoomNID: Set<UserNID>] = [:]
        /// How many listeners wait for nothing at the moment.
        var idle = 0
        var isDraining = false

        mutating func add(_ waiter: Waiter) {
            var listener = listeners.removeValue(forKey: waiter.user)
            if listener?.waiters.isEmpty == true { idle -= 1 }
            // Sets that are one and the same compare at once, which is what a user's rooms are from one sync to the next.
            if let known = listener, known.rooms != waiter.rooms {
                let rooms =
                    known.waiters.values.reduce(into: waiter.rooms) { $0.formUnion($1.rooms) }
                for room in known.rooms.subtracting(rooms) { forget(waiter.user, in: room) }
                for room in rooms.subtracting(known.rooms) { byRoom[room, default: []].insert(waiter.user) }
                listener?.rooms = rooms
            } else if listener == nil {
                for room in waiter.rooms { byRoom[room, default: []].insert(waiter.user) }
                listener = Listener(rooms: waiter.rooms)
            }
            listener?.waiters[ObjectIdentifier(waiter)] = waiter
            listeners[waiter.user] = listener
        }

        mutating func remove(_ waiter: Waiter) {
            guard listeners[waiter.user]?.waiters.removeValue(forKey: ObjectIdentifier(waiter)) != nil,
                listeners[waiter.user]?.waiters.isEmpty == true
            else { return }
            idle += 1
            // Those who don't come back are cleared away together, so that it costs each of them once.
            if idle > 1000 + listeners.count / 2 {
                for (user, listener) in listeners where listener.waiters.isEmpty { drop(user, listener) }
                idle = 0
            }
        }

        private mutating func drop(_ user: UserNID, _ listener: Listener) {
            for room in listener.rooms { forget(user, in: room) }
            listeners[user] = nil
        }

        private mutating func forget(_ user: UserNID, in room: RoomNID) {
            byRoom[room]?.remove(user)
            if byRoom[room]?.isEmpty == true { byRoom[room] = nil }
        }

        /// Those of a room's listeners who wait for something in it: another waiter of the same user may be there for other rooms.
        func waiters(in room: RoomNID) -> [Waiter] {
            byRoom[room, default: []].flatMap { user in
                listeners[user]?.waiters.values.filter { $0.rooms.contains(room) } ?? []
            }
        }
    }

    /// The lock protects the table; nothing is awaited while it is held.
    private let table = Mutex(Table())

    init() {}

    /// - Parameter rooms: the rooms whose events concern the user.
    func register(_ user: UserNID, rooms: Set<RoomNID>) -> Waiter {
        let waiter = Waiter(user: user, rooms: rooms)
        let isDraining = table.withLock { table in
            table.add(waiter)
            return table.isDraining
        }
        if isDraining { waiter.wake() }
        return waiter
    }

    func remove(_ waiter: Waiter) {
        table.withLock { $0.remove(waiter) }
    }

    /// Wakes all whom the topics concern. Costs a look at each of them, however many others wait.
    func publish(_ topics: [Topic]) {
        var rooms: Set<RoomNID> = []
        var users: Set<UserNID> = []
        var concernsAll = false
        for topic in topics {
            switch topic {
            case .room(let room), .deviceListIn(let room): rooms.insert(room)
            case .user(let user), .memberships(let user), .roomOf(_, let user), .deviceList(let user),
                .profile(let user):
                users.insert(user)
            case .event, .pushRules, .presence, .destination, .receipts, .typing: break
            case .everything: concernsAll = true
            }
        }
        let concerned = table.withLock { table in
            if concernsAll { return table.listeners.values.flatMap(\.waiters.values) }
            return rooms.flatMap(table.waiters(in:))
                + users.flatMap { table.listeners[$0]?.waiters.values.map(\.self) ?? [] }
        }
        for waiter in concerned { waiter.wake() }
    }

    /// Has all waiting syncs answer now, and those that come later too: the server is going down.
    public func drain() {
        let all = table.withLock { table in
            table.isDraining = true
            return table.listeners.values.flatMap(\.waiters.values)
        }
        for waiter in all { waiter.wake() }
    }

    var isDraining: Bool { table.withLock { $0.isDraining } }
}
