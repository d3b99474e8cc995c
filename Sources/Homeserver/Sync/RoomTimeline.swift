import Database
import MatrixCore

/// The newest events of a room that a user may see, for every way of syncing.
struct RoomTimeline {
    /// Oldest first.
    var events: [StoredEvent] = []
    /// What the user was in the room, at each of them.
    var memberships: [EventNID: Membership] = [:]
    /// Whether there is more between what the client knows and these events.
    var isLimited = false
    /// Where going back goes on.
    var before: Database.OrderedPlace?

    /// Events that are looked at for one room at most; what is beyond is behind a gap.
    private static let mostExamined = 1_000

    /// What is wanted of a timeline.
    struct Wanted {
        let room: Room
        let membership: RoomMembership
        /// Where the user left the room, for those who have.
        let leftAt: Int64?
        let limit: Int
        /// Which of the events are wanted; nil: all.
        var filter: RoomEventFilter?
        /// The position up to which the client knows the room; nil if it doesn't.
        let after: Int64?
        let upTo: Int64
        /// Whether it ends at state that changed unseen: what is older is behind a gap, and told as the state before the
        /// timeline. Where the client is told the state after the timeline it need not end.
        var endsAtHiddenState = false
        let glance: RoomGlance
    }

    static func read(
        _ wanted: Wanted, for requester: Requester, _ context: RoomContext, _ reader: any Reader
    ) async throws -> RoomTimeline {
        let database = context.database
        let room = wanted.room
        let access = RoomAccess(leftAt: wanted.leftAt, membership: wanted.membership.membership)
        var visibility = try await EventVisibility(
            context, room: room, user: requester.userID, nid: requester.nid, access: access, reader: reader)
        var newestFirst: [StoredEvent] = []
        var result = RoomTimeline()
        var examined = 0
        let end = Database.OrderedPlace(depth: .max, position: .max)
        var start = end
        // For who has left it ends with that: since then any number of events may have come.
        if let leftAt = wanted.leftAt, let left = try await database.place(upTo: leftAt, in: room.nid, reader) {
            start = left
        }
        var place = start
        paging: while true {
            let ask = max(wanted.limit - newestFirst.count + 1, 8)
            var numbers = place == end ? try await wanted.glance.newest(ask, reader) : []
            var events = try await database.events(numbers, reader)
            // What came after the reader's first question isn't there for it.
            if place != end || events.count < numbers.count {
                numbers = try await database.timeline(
                    of: room.nid, from: place, backwards: true, limit: ask, reader)
                events = try await database.events(numbers, reader)
            }
            let behindGaps =
                try await wanted.glance.hasGaps(reader)
                ? Set(try await database.gaps(before: events, reader).map(\.before)) : []
            for stored in events {
                guard let position = stored.position else { continue }
                // A gap, or older than what the client knows.
                if position < 0 || position <= wanted.after ?? 0 {
                    // History that was fetched lies before what had come without it, some of which may be new to the client.
                    if position < 0, wanted.after == nil || examined > 0 { result.isLimited = true }
                    break paging
                }
                if position <= wanted.upTo {
                    if newestFirst.count >= wanted.limit || examined >= Self.mostExamined {
                        result.isLimited = true
                        break paging
                    }
                    examined += 1
                    let isVisible = try await visibility.allows(stored)
                    if !isVisible, stored.stateKey != nil, wanted.endsAtHiddenState {
                        result.isLimited = true
                        break paging
                    }
                    if isVisible, try await wanted.filter?.admits(stored, context, room.version) ?? true {
                        newestFirst.append(stored)
                        result.memberships[stored.nid] = try await visibility.membership(at: stored)
                    }
                }
                place = Database.OrderedPlace(depth: stored.orderDepth, position: position - 1)
                if position <= wanted.upTo, behindGaps.contains(stored.nid) {
                    // Who goes back from here has what is missing fetched.
                    result.isLimited = true
                    break paging
                }
            }
            if numbers.count < ask { break }
        }
        result.events = newestFirst.reversed()
        if place != start {
            result.before = place
        } else if let newest = try await database.timeline(
            of: room.nid, from: place, backwards: true, limit: 1, reader
        ).first,
            let event = try await database.events([newest], reader).first
        {
            result.before = Database.OrderedPlace(depth: event.orderDepth, position: event.position ?? 0)
        }
        return result
    }
}
