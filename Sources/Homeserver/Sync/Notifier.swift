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
            var continuation: CheckedContinuation<Void, Never>?
        }

        fileprivate init(user: UserNID, rooms: Set<RoomNID>) {
            self.user = user
            self.rooms = rooms
        }

        func wake() {
            let continuation = state.withLock { state in
                state.isWoken = true
                defer { state.continuation = nil }
                return state.continuation
            }
            continuation?.resume()
        }

        /// Returns when something has happened since the registration, or the task is cancelled.
        func wait() async {
            await withTaskCancellationHandler {
                await withCheckedContinuation { continuation in
                    let isWoken = state.withLock { state in
                        if !state.isWoken { state.continuation = continuation }
                        return state.isWoken
                    }
                    if isWoken { continuation.resume() }
                }
            } onCancel: {
                wake()
            }
        }
    }

    private struct Table {
        var waiters: [UserNID: [ObjectIdentifier: Waiter]] = [:]
        var isDraining = false
    }

    /// The lock protects the table; nothing is awaited while it is held.
    private let table = Mutex(Table())

    init() {}

    /// - Parameter rooms: the rooms whose events concern the user.
    func register(_ user: UserNID, rooms: Set<RoomNID>) -> Waiter {
        let waiter = Waiter(user: user, rooms: rooms)
        let isDraining = table.withLock { table in
            table.waiters[user, default: [:]][ObjectIdentifier(waiter)] = waiter
            return table.isDraining
        }
        if isDraining { waiter.wake() }
        return waiter
    }

    func remove(_ waiter: Waiter) {
        table.withLock { table in
            table.waiters[waiter.user]?[ObjectIdentifier(waiter)] = nil
            if table.waiters[waiter.user]?.isEmpty == true { table.waiters[waiter.user] = nil }
        }
    }

    /// Wakes all whom the topics concern. Costs one look for each user who waits, however large the room is.
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
            case .event, .pushRules, .presence, .destination: break
            case .everything: concernsAll = true
            }
        }
        let concerned = table.withLock { table in
            table.waiters.values.flatMap { waiters in
                waiters.values.filter { concernsAll || users.contains($0.user) || !$0.rooms.isDisjoint(with: rooms) }
            }
        }
        for waiter in concerned { waiter.wake() }
    }

    /// Has all waiting syncs answer now, and those that come later too: the server is going down.
    public func drain() {
        let all = table.withLock { table in
            table.isDraining = true
            return table.waiters.values.flatMap(\.values)
        }
        for waiter in all { waiter.wake() }
    }

    var isDraining: Bool { table.withLock { $0.isDraining } }
}
