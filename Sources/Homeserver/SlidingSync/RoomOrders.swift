import Database
import MatrixCore
import Synchronization

/// The rooms that accounts are in, the most lively first: kept from one look to the next, so that looking costs what has changed
/// meanwhile, and not what an account has.
final class RoomOrders: Sendable {
    /// A room and the position of its newest event.
    struct Ranked: Sendable {
        let membership: RoomMembership
        var position: Int64

        static func isBefore(_ left: Ranked, _ right: Ranked) -> Bool {
            (left.position, left.membership.room) > (right.position, right.membership.room)
        }
    }

    private struct Order: Sendable {
        /// When the user's memberships changed last.
        let memberships: Int64
        /// Everything that has happened in rooms up to here is in it.
        var asOf: Int64
        var rooms: [Ranked]
    }

    private let facts: RoomFactsCache
    private let activity: Activity
    /// Rooms of accounts, all together, that are kept.
    private static let most = 400_000
    /// The lock protects the cache; nothing is awaited while it is held.
    private let orders = Mutex(BoundedCache<UserNID, Order>(capacity: most))

    init(facts: RoomFactsCache, activity: Activity) {
        self.facts = facts
        self.activity = activity
    }

    /// The rooms that a user is in, in their order.
    func joined(_ known: SyncService.KnownMemberships, by user: UserNID) async throws -> [Ranked] {
        if var order = orders.withLock({ $0[user] }), order.memberships == known.asOf,
            let changes = activity.changes(after: order.asOf)
        {
            let moved = Set(changes.rooms).intersection(known.joined)
            if !moved.isEmpty {
                let facts = try await facts.facts(of: Array(moved), for: user)
                Self.move(moved, facts, in: &order.rooms)
            }
            if order.asOf != changes.upTo {
                order.asOf = changes.upTo
                keep(order, user)
            }
            return order.rooms
        }
        let asOf = activity.latest
        let facts = try await facts.facts(of: Array(known.joined), for: user)
        var rooms: [Ranked] = []
        rooms.reserveCapacity(known.joined.count)
        for membership in known.list where membership.membership == .join {
            let newest = facts[membership.room]?.newest ?? membership.position
            rooms.append(Ranked(membership: membership, position: newest))
        }
        rooms.sort(by: Ranked.isBefore)
        keep(Order(memberships: known.asOf, asOf: asOf, rooms: rooms), user)
        return rooms
    }

    private func keep(_ order: Order, _ user: UserNID) {
        orders.withLock { $0.insert(order, for: user, size: 1 + order.rooms.count) }
    }

    /// Gives rooms in which something has happened their places.
    private static func move(_ moved: Set<RoomNID>, _ facts: [RoomNID: RoomFacts], in rooms: inout [Ranked]) {
        var taken: [Ranked] = []
        rooms.removeAll { room in
            guard moved.contains(room.membership.room) else { return false }
            var room = room
            room.position = facts[room.membership.room]?.newest ?? room.position
            taken.append(room)
            return true
        }
        for room in taken.sorted(by: Ranked.isBefore) {
            var (low, high) = (0, rooms.count)
            while low < high {
                let middle = (low + high) / 2
                if Ranked.isBefore(rooms[middle], room) { low = middle + 1 } else { high = middle }
            }
            rooms.insert(room, at: low)
        }
    }
}
