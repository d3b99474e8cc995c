import MatrixCore

extension Database {
    private static let byNumber = Statement("SELECT \(StoredEvent.columns) FROM events WHERE event_nid = $1")
    private static let byKey = Statement("SELECT \(StoredEvent.columns) FROM events WHERE event_key = $1")

    /// Events by their numbers, in the order of the numbers given; those that are not there are left out. A point read
    /// for each that is not in the cache.
    public func events(_ numbers: [EventNID], _ reader: any Reader) async throws -> [StoredEvent] {
        if numbers.count == 1, let event = storedEvents[numbers[0]] { return [event] }
        var found = [StoredEvent?](repeating: nil, count: numbers.count)
        var missing: [Int] = []
        for (index, number) in numbers.enumerated() {
            if let event = storedEvents[number] { found[index] = event } else { missing.append(index) }
        }
        if !missing.isEmpty {
            let asked = missing
            let read = try await reader.queryEach(Self.byNumber, asked.map { [numbers[$0].value] }) {
                (asked[$0], try StoredEvent(row: $1))
            }
            for (index, event) in read {
                found[index] = event
                storedEvents.insert(event)
            }
        }
        return found.compactMap { $0 }
    }

    public func events(_ numbers: [EventNID]) async throws -> [StoredEvent] {
        try await read { try await self.events(numbers, $0) }
    }

    /// An event by its ID, whatever its standing.
    public func event(_ eventID: EventID) async throws -> StoredEvent? {
        let event = try await readOnce { reader in
            try await reader.first(Self.byKey, [.blob(StoredEvent.key(of: eventID))]) { try StoredEvent(row: $0) }
        }
        guard let event, event.eventID == eventID else { return nil }
        storedEvents.insert(event)
        return event
    }

    /// Events by their IDs, whatever their standing; those that are not there are left out. A point read for each.
    public func events(_ ids: [EventID], _ reader: any Reader) async throws -> [EventID: StoredEvent] {
        let found = try await reader.queryEach(Self.byKey, ids.map { [.blob(StoredEvent.key(of: $0))] }) {
            (ids[$0], try StoredEvent(row: $1))
        }
        var events: [EventID: StoredEvent] = [:]
        for (id, event) in found where event.eventID == id {
            events[id] = event
            storedEvents.insert(event)
        }
        return events
    }

    private static let redactionsOf = Statement("SELECT event_nid FROM redactions WHERE target_key = $1")

    /// The redactions that wait for an event to come. One range of one index.
    public func redactions(of event: EventID, _ reader: any Reader) async throws -> [EventNID] {
        try await reader.query(Self.redactionsOf, [.blob(StoredEvent.key(of: event))]) { EventNID($0.integer(0)) }
    }

    /// A place in a room's order, between events: `/messages` goes on from it in either direction.
    public struct OrderedPlace: Sendable, Hashable, Comparable {
        public let depth: Int64
        public let position: Int64

        public init(depth: Int64, position: Int64) {
            self.depth = depth
            self.position = position
        }

        public static func < (left: Self, right: Self) -> Bool {
            (left.depth, left.position) < (right.depth, right.position)
        }
    }

    private static let backwards = Statement(
        """
        SELECT event_nid FROM events WHERE room_nid = $1 AND position IS NOT NULL AND (order_depth, position) <= ($2, $3)
        ORDER BY order_depth DESC, position DESC LIMIT $4
        """)
    private static let forwards = Statement(
        """
        SELECT event_nid FROM events WHERE room_nid = $1 AND position IS NOT NULL AND (order_depth, position) > ($2, $3)
        ORDER BY order_depth, position LIMIT $4
        """)

    /// The numbers of up to `limit` events at or before a place in the room's order, newest first, or behind it, oldest
    /// first. One range of one index.
    public func timeline(
        of room: RoomNID, from place: OrderedPlace, backwards: Bool, limit: Int, _ reader: any Reader
    ) async throws -> [EventNID] {
        try await reader.query(
            backwards ? Self.backwards : Self.forwards,
            [room.value, .integer(place.depth), .integer(place.position), .integer(Int64(limit))]
        ) { EventNID($0.integer(0)) }
    }

    private static let ofPosition = Statement("SELECT order_depth FROM events WHERE position = $1 AND room_nid = $2")
    private static let newestLive = Statement(
        """
        SELECT order_depth, position FROM events WHERE room_nid = $1 AND position > 0
        ORDER BY order_depth DESC, position DESC LIMIT 1
        """)
    private static let liveFrom = Statement(
        """
        SELECT order_depth, position FROM events WHERE room_nid = $1 AND position > 0 AND order_depth >= $2
        ORDER BY order_depth, position LIMIT 1
        """)

    /// The place in a room's order of the newest event up to a position, or before the first live one if they are all newer; nil if there
    /// are none. Live events are in the order of their positions: a point read for the event itself, and for each halving of the room
    /// where the position is of something else.
    public func place(upTo position: Int64, in room: RoomNID, _ reader: any Reader) async throws -> OrderedPlace? {
        func place(_ row: any Row) -> OrderedPlace { OrderedPlace(depth: row.integer(0), position: row.integer(1)) }
        let exact = try await reader.first(Self.ofPosition, [.integer(position), room.value]) { $0.integer(0) }
        if let exact { return OrderedPlace(depth: exact, position: position) }
        guard let newest = try await reader.first(Self.newestLive, [room.value], place) else { return nil }
        if newest.position <= position { return newest }
        guard var found = try await reader.first(Self.liveFrom, [room.value, .integer(0)], place) else { return nil }
        if found.position > position { return OrderedPlace(depth: found.depth, position: 0) }
        var (low, high) = (found.depth + 1, newest.depth)
        while low < high {
            let middle = low + (high - low) / 2
            let live = try await reader.first(Self.liveFrom, [room.value, .integer(middle)], place)
            if let live, live.position <= position {
                found = live
                low = live.depth + 1
            } else {
                high = middle
            }
        }
        return found
    }

    private static let latest = Statement(
        """
        SELECT event_nid, position FROM events WHERE room_nid = $1 AND position IS NOT NULL
        ORDER BY order_depth DESC, position DESC LIMIT $2
        """)

    /// The newest events of a room with positions above `after` and up to `upTo`, newest first, `limit` at most. Live
    /// events are in the order of their positions, so this is the end of one index range.
    public func newestEvents(
        in room: RoomNID, after: Int64, upTo: Int64, limit: Int, _ reader: any Reader
    ) async throws -> [EventNID] {
        // What was committed since `upTo` was read comes first and is skipped; as a rule there is none.
        var ask = limit + 4
        while true {
            let newest = try await reader.query(Self.latest, [room.value, .integer(Int64(ask))]) {
                (EventNID($0.integer(0)), $0.integer(1))
            }
            let wanted = newest.filter { $0.1 > after && $0.1 <= upTo }
            let reachedTheEnd = newest.count < ask || newest.last!.1 <= after
            if wanted.count >= limit || reachedTheEnd { return wanted.prefix(limit).map(\.0) }
            ask *= 4
        }
    }

    private static let atDepth = Statement(
        """
        SELECT order_depth, origin_server_ts FROM events WHERE room_nid = $1 AND position IS NOT NULL AND order_depth >= $2
        ORDER BY order_depth, position LIMIT 1
        """)

    /// The order depth from which on the events of a room are of a time or later, as far as their timestamps follow its order.
    /// A point read for each halving of the room.
    public func depth(in room: RoomNID, from timestamp: Int64, upTo last: Int64, _ reader: any Reader) async throws
        -> Int64
    {
        var low: Int64 = 0
        var high = last + 1
        while low < high {
            let middle = low + (high - low) / 2
            let found = try await reader.first(Self.atDepth, [room.value, .integer(middle)]) {
                (depth: $0.integer(0), timestamp: $0.integer(1))
            }
            if let found, found.timestamp < timestamp { low = found.depth + 1 } else { high = middle }
        }
        return low
    }

    private static let changedRooms = Statement(
        "SELECT DISTINCT room_nid FROM events WHERE position > $1 AND position <= $2")

    /// The rooms that got events between two positions. One range of one index, as long as the number of those events.
    public func rooms(withEventsAfter after: Int64, upTo: Int64, _ reader: any Reader) async throws -> [RoomNID] {
        try await reader.query(Self.changedRooms, [.integer(after), .integer(upTo)]) { RoomNID($0.integer(0)) }
    }
}
