import Database
import MatrixCore

/// Which sticky events one answer tells (MSC4354, "Current `/sync`"): “If there are too many sticky events to deliver at once, they
/// will be delivered in subsequent `/sync` responses instead.”
///
/// They are told room by room, and in each in the order of their positions. An answer that can't tell all of what lies between two
/// positions notes in its token how far it came; the next one goes on there before it looks for what has come since.
struct StickyDelivery {
    /// By room, those of each in the order in which they came.
    private(set) var events: [RoomNID: [EventNID]] = [:]
    /// Where the next answer goes on; nil: everything is told.
    private(set) var rest: Place?
    private var left = Self.most

    /// Events that one answer tells.
    private static let most = 500
    /// Rooms that are looked at one by one; of more, those that have any are looked up first.
    private static let few = 20

    /// How far an answer came with the events between two positions, as a part of its token: `k<after>.<upTo>.<room>.<position>`.
    struct Place: Sendable, Equatable {
        var after: Int64
        var upTo: Int64
        var room: Int64
        var position: Int64

        var text: String { "k\(after).\(upTo).\(room).\(position)" }

        init(after: Int64, upTo: Int64, room: Int64, position: Int64) {
            self.after = after
            self.upTo = upTo
            self.room = room
            self.position = position
        }

        init?(_ text: some StringProtocol) {
            guard text.hasPrefix("k") else { return nil }
            let numbers = text.dropFirst().split(separator: ".", omittingEmptySubsequences: false).map { Int64($0) }
            guard numbers.count == 4, let after = numbers[0], let upTo = numbers[1], let room = numbers[2],
                let position = numbers[3]
            else { return nil }
            self.init(after: after, upTo: upTo, room: room, position: position)
        }
    }

    /// What is to be told, and to whom.
    struct Wanted {
        let user: UserID
        /// The rooms that the user is in.
        let joined: [RoomMembership]
        /// Those of them in which something may have come since; nil: all.
        let changed: Set<RoomNID>?
        /// Everything up to here is told, but for the rest; 0: nothing is.
        let since: Int64
        let rest: Place?
        let upTo: Int64
        let now: Int64
        /// When each room changed last, as far as that is known.
        let lastChanges: [RoomNID: Int64]
    }

    static func read(_ wanted: Wanted, _ rooms: RoomRegistry, _ reader: any Reader) async throws -> StickyDelivery {
        var delivery = StickyDelivery()
        var since = wanted.since
        if let rest = wanted.rest {
            try await delivery.add(
                wanted, wanted.joined, after: rest.after, upTo: rest.upTo, from: rest, rooms, reader)
            if delivery.rest != nil { return delivery }
            since = rest.upTo
        }
        let changed = wanted.joined.filter { wanted.changed?.contains($0.room) ?? true }
        try await delivery.add(wanted, changed, after: since, upTo: wanted.upTo, from: nil, rooms, reader)
        return delivery
    }

    /// Adds the events of the rooms between two positions, of those just joined all there are.
    private mutating func add(
        _ wanted: Wanted, _ memberships: [RoomMembership], after: Int64, upTo: Int64, from: Place?,
        _ rooms: RoomRegistry, _ reader: any Reader
    ) async throws {
        var memberships = memberships.filter { $0.room.rawValue >= from?.room ?? 0 }
        if memberships.count > Self.few {
            let having = try await rooms.database.roomsWithStickyEvents(at: wanted.now, reader)
            memberships.removeAll { !having.contains($0.room) }
        }
        for membership in memberships.sorted(by: { $0.room < $1.room }) {
            let glance = rooms.context.glances.of(membership.room, asOf: wanted.lastChanges[membership.room])
            guard try await glance.mayHaveStickyEvents(at: wanted.now, reader) else { continue }
            var start = after
            if let from, from.room == membership.room.rawValue {
                start = from.position
            } else if after > 0, membership.position > after,
                try await !rooms.context.wasJoined(
                    wanted.user, in: try await rooms.room(membership.room), at: after, reader)
            {
                start = 0
            }
            let found = try await rooms.database.stickyEvents(
                in: membership.room, after: start, upTo: upTo, at: wanted.now, limit: left + 1, reader)
            if found.isEmpty { continue }
            let told = found.prefix(left)
            events[membership.room, default: []] += told.map(\.event)
            left -= told.count
            if found.count > told.count {
                rest = Place(
                    after: after, upTo: upTo, room: membership.room.rawValue, position: told.last?.position ?? start)
                return
            }
        }
    }
}
