import Database
import MatrixCore

/// Events and states for other servers (Server-Server API, "Retrieving events", "Backfilling and retrieving missing events",
/// "Retrieving event authorisation information", "Event-timestamp").
public final class EventServing: Sendable {
    let federated: FederatedRooms
    let reading: RoomReading
    var database: Database { federated.database }
    var context: RoomContext { federated.context }

    /// Events of an answer at most.
    private static let mostBackfilled = 100
    private static let mostMissing = 20
    /// Events that are looked at for an answer.
    private static let mostExamined = 2_000

    init(federated: FederatedRooms, reading: RoomReading) {
        self.federated = federated
        self.reading = reading
    }

    /// `{"origin", "origin_server_ts", "pdus"}`: what several operations answer with.
    private func transaction(_ events: [[UInt8]]) -> [UInt8] {
        var writer = JSONWriter(capacity: events.reduce(256) { $0 + $1.count + 1 })
        writer.beginObject()
        writer.key("origin")
        writer.string(context.serverName.string)
        writer.key("origin_server_ts")
        writer.integer(context.surroundings.now())
        writer.key("pdus")
        Self.write(events, into: &writer)
        writer.endObject()
        return writer.bytes
    }

    /// Writes events that are JSON already.
    static func write(_ events: some Sequence<[UInt8]>, into writer: inout JSONWriter) {
        writer.beginArray()
        for event in events { writer.raw(event) }
        writer.endArray()
    }

    /// One event (`GET /event/{eventId}`).
    public func event(_ eventID: EventID, for server: ServerName) async throws -> [UInt8] {
        let unknown = MatrixError.notFound("This server has no such event that it may show.")
        guard let stored = try await database.event(eventID), stored.flags.isDisjoint(with: .rejected) else {
            throw unknown
        }
        let room = try await federated.rooms.room(stored.room)
        guard room.wasEntered, try await federated.isIn(server, room),
            try await federated.allows(server, in: room)
        else { throw unknown }
        let event = try await database.read { reader in
            var visibility = try await ServerVisibility(self.context, room: room, server: server, reader: reader)
            return try await visibility.shown(stored)
        }
        return transaction([event])
    }

    /// The event that was asked for, with its room.
    private func known(_ eventID: EventID, in roomID: RoomID, for server: ServerName) async throws -> (
        Room, StoredEvent
    ) {
        let room = try await federated.room(roomID, withMember: server, before: [eventID])
        guard let stored = try await database.event(eventID), stored.room == room.nid,
            stored.flags.isDisjoint(with: [.rejected, .outlier])
        else { throw MatrixError.notFound("This server has no such event in the room.") }
        return (room, stored)
    }

    /// The state before an event with its auth chain, as events (`GET /state/{roomId}`) or as IDs (`GET /state_ids/{roomId}`).
    public func state(
        before eventID: EventID, in roomID: RoomID, idsOnly: Bool, for server: ServerName
    ) async throws -> [UInt8] {
        let (room, stored) = try await known(eventID, in: roomID, for: server)
        try federated.checkWhole(room)
        guard let before = stored.stateBefore else {
            throw MatrixError.notFound("The state at this event isn't known.")
        }
        let (state, chain) = try await events(of: before, in: room)
        var writer = JSONWriter(capacity: 64 * (state.count + chain.count) + 64)
        writer.beginObject()
        if idsOnly {
            for (name, list) in [("auth_chain_ids", chain), ("pdu_ids", state)] {
                writer.key(name)
                writer.beginArray()
                for event in list { writer.string(event.eventID.string) }
                writer.endArray()
            }
        } else {
            for (name, list) in [("auth_chain", chain), ("pdus", state)] {
                writer.key(name)
                Self.write(try list.map { try context.told($0, room.version) }, into: &writer)
            }
        }
        writer.endObject()
        return writer.bytes
    }

    /// The events of a state, and all that authorise them.
    func events(of state: StateNID, in room: Room) async throws -> (state: [StoredEvent], chain: [StoredEvent]) {
        try await database.read { reader in
            let tree = StateTree(rows: self.database.stateRows, room: room.nid)
            let numbers = try await tree.entries(in: state, reader).map(\.event)
            let chain = try await self.database.authChain(of: numbers, reader)
            return (
                try await self.database.events(numbers.sorted(), reader),
                try await self.database.events(chain.sorted(), reader).filter { !$0.flags.contains(.rejected) }
            )
        }
    }

    /// What authorises an event (`GET /event_auth/{roomId}/{eventId}`).
    public func authChain(of eventID: EventID, in roomID: RoomID, for server: ServerName) async throws -> [UInt8] {
        let room = try await federated.room(roomID, withMember: server, before: [eventID])
        guard let stored = try await database.event(eventID), stored.room == room.nid else {
            throw MatrixError.notFound("This server has no such event in the room.")
        }
        let events = try await database.read { reader in
            let chain = try await self.database.authChain(of: [stored.nid], reader)
            return try await self.database.events(chain.sorted(), reader)
        }
        var writer = JSONWriter(capacity: 4_096)
        writer.beginObject()
        writer.key("auth_chain")
        Self.write(try events.map { try context.told($0, room.version) }, into: &writer)
        writer.endObject()
        return writer.bytes
    }

    /// History from before events and those events themselves, newest first (`GET /backfill/{roomId}`).
    public func backfill(
        from eventIDs: [EventID], in roomID: RoomID, limit: Int, for server: ServerName
    ) async throws -> [UInt8] {
        let room = try await federated.room(roomID, withMember: server)
        let most = min(max(limit, 1), Self.mostBackfilled)
        let events = try await database.read { reader in
            let starts = try await self.database.events(Array(eventIDs.prefix(20)), reader).values
            return try await self.walk(
                from: starts.map(\.nid).sorted(), stop: [], in: room, limit: most, for: server, reader)
        }
        return transaction(events.map(\.json))
    }

    /// The events between some and others (`POST /get_missing_events/{roomId}`).
    public func missing(_ body: JSONView, in roomID: RoomID, for server: ServerName) async throws -> [UInt8] {
        func ids(_ field: String) -> [EventID] {
            body[field]?.elements.prefix(Self.mostMissing).compactMap { $0.string.flatMap { EventID($0) } } ?? []
        }
        let latest = ids("latest_events")
        let earliest = ids("earliest_events")
        let room = try await federated.room(roomID, withMember: server, before: latest)
        let limit = min(max(Int(clamping: body["limit"]?.integer ?? 10), 1), Self.mostMissing)
        let minimum = body["min_depth"]?.integer ?? 0
        let found = try await database.read { reader in
            let found = try await self.database.events(latest + earliest, reader)
            let stop = Set(earliest.compactMap { found[$0]?.nid } + latest.compactMap { found[$0]?.nid })
            let starts = latest.compactMap { found[$0] }.filter { $0.room == room.nid }.flatMap(\.previous)
            return try await self.walk(
                from: starts, stop: stop, in: room, limit: limit, for: server, reader)
        }
        var writer = JSONWriter(capacity: 4_096)
        writer.beginObject()
        writer.key("events")
        let events = try found.filter { try minimum <= 0 || context.parse($0.stored, room.version).depth >= minimum }
        Self.write(events.reversed().map(\.json), into: &writer)
        writer.endObject()
        return writer.bytes
    }

    /// An event, and as what it is shown.
    private struct Shown {
        let stored: StoredEvent
        let json: [UInt8]
    }

    /// Walks back through the graph, newest first.
    private func walk(
        from starts: [EventNID], stop: Set<EventNID>, in room: Room, limit: Int, for server: ServerName,
        _ reader: any Reader
    ) async throws -> [Shown] {
        var visibility = try await ServerVisibility(context, room: room, server: server, reader: reader)
        var seen = stop
        var open: [StoredEvent] = []
        var found: [Shown] = []
        var examined = 0
        func add(_ numbers: [EventNID]) async throws {
            let new = numbers.filter { seen.insert($0).inserted }
            for event in try await database.events(new, reader)
            where event.room == room.nid && !event.flags.contains(.outlier) {
                open.append(event)
            }
            // Most events have one before them, so that there is nothing to put in order.
            if open.count > 1 { open.sort { ($0.orderDepth, $0.nid) < ($1.orderDepth, $1.nid) } }
        }
        try await add(starts)
        while found.count < limit, examined < Self.mostExamined, let next = open.popLast() {
            examined += 1
            if !next.flags.contains(.rejected) {
                found.append(Shown(stored: next, json: try await visibility.shown(next)))
            }
            try await add(next.previous)
        }
        return found
    }

    /// The event nearest to a time (`GET /timestamp_to_event/{roomId}`).
    public func event(
        at timestamp: Int64, backwards: Bool, in roomID: RoomID, for server: ServerName
    ) async throws -> JSON {
        let room = try await federated.room(roomID, withMember: server)
        let found = try await database.read { reader -> StoredEvent? in
            let depth = try await self.database.depth(
                in: room.nid, from: timestamp, upTo: room.record.depth, reader)
            let place = Database.OrderedPlace(depth: backwards ? depth : depth - 1, position: backwards ? .min : .max)
            let numbers = try await self.database.timeline(
                of: room.nid, from: place, backwards: backwards, limit: 1, reader)
            return try await self.database.events(numbers, reader).first
        }
        guard let found else { throw MatrixError.notFound("The room has no event there.") }
        return ["event_id": .string(found.eventID.string), "origin_server_ts": .integer(found.originServerTS)]
    }
}
