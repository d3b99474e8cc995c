import Database
import MatrixCore

extension RoomReading {
    /// An event with what came before and after it, and the state there, as the encoded answer
    /// (`GET /rooms/{roomId}/context/{eventId}`).
    ///
    /// - Parameter limit: events around it, half of them before.
    /// - Throws: `M_NOT_FOUND` also for what the requester may not read.
    public func context(
        of eventID: EventID, in roomID: RoomID, limit: Int, filter: RoomEventFilter, for requester: Requester
    ) async throws -> [UInt8] {
        let none = MatrixError.notFound("There is no such event, or you may not read it.")
        let (room, access) = try await rooms.readable(roomID, by: requester)
        guard let stored = try await database.event(eventID), stored.room == room.nid, let position = stored.position
        else { throw none }
        let half = min(max(limit, 0), Self.largestPage) / 2
        return try await database.read { reader in
            var visibility = try await EventVisibility(
                self.context, room: room, user: requester.userID, nid: requester.nid, access: access, reader: reader)
            guard try await visibility.allows(stored) else { throw none }
            let at = Database.OrderedPlace(depth: stored.orderDepth, position: position)
            let before = try await self.around(
                room, from: .init(depth: at.depth, position: position - 1), backwards: true, half, filter, &visibility,
                reader)
            let after = try await self.around(
                room, from: at, backwards: false, half, filter, &visibility, reader)
            let last = after.events.last ?? stored
            let state = try await self.state(
                around: room, last, before.events + [stored] + after.events, filter, reader)
            var writer = JSONWriter(capacity: 16_384)
            writer.beginObject()
            writer.key("event")
            try await self.write(
                [stored], room, requester, seenBy: &visibility, into: &writer, reader, asArray: false)
            for (name, events) in [("events_before", before.events), ("events_after", after.events), ("state", state)] {
                writer.key(name)
                try await self.write(
                    events, room, requester, seenBy: &visibility, into: &writer, reader, asArray: true)
            }
            writer.key("start")
            writer.string(PaginationToken(before.end).text)
            writer.key("end")
            writer.string(PaginationToken(after.end).text)
            writer.endObject()
            return writer.bytes
        }
    }

    /// Writes events, either as an array or, one, as itself; with what the requester was at each of them.
    func write(
        _ events: [StoredEvent], _ room: Room, _ requester: Requester, seenBy visibility: inout EventVisibility,
        into writer: inout JSONWriter, _ reader: any Reader, asArray: Bool
    ) async throws {
        var memberships: [EventNID: Membership] = [:]
        for event in events { memberships[event.nid] = try await visibility.membership(at: event) }
        let audience = ClientEvents.Audience(requester, now: context.surroundings.now())
        let page = try await self.events.page(
            events, for: requester.nid, memberships: memberships, seenBy: &visibility, reader)
        if asArray { writer.beginArray() }
        for event in page.events {
            try self.events.write(event, of: page, version: room.version, for: audience, into: &writer)
        }
        if asArray { writer.endArray() }
    }

    /// Up to `limit` events on one side of a place, and the place where that side goes on.
    func around(
        _ room: Room, from start: Database.OrderedPlace, backwards: Bool, _ limit: Int, _ filter: RoomEventFilter,
        _ visibility: inout EventVisibility, _ reader: any Reader
    ) async throws -> (events: [StoredEvent], end: Database.OrderedPlace) {
        var found: [StoredEvent] = []
        var end = start
        guard limit > 0, filter.admits(room.roomID) else { return (found, end) }
        let numbers = try await database.timeline(
            of: room.nid, from: start, backwards: backwards, limit: min(4 * limit, Self.mostExamined), reader)
        for event in try await database.events(numbers, reader) {
            guard found.count < limit, let position = event.position else { break }
            end = Database.OrderedPlace(depth: event.orderDepth, position: backwards ? position - 1 : position)
            if try await visibility.allows(event), try await filter.admits(event, context, room.version) {
                found.append(event)
            }
        }
        return (found, end)
    }

    /// The state before the last event shown, filtered; of members only those of the shown senders when they are loaded lazily.
    private func state(
        around room: Room, _ last: StoredEvent, _ shown: [StoredEvent], _ filter: RoomEventFilter, _ reader: any Reader
    ) async throws -> [StoredEvent] {
        guard let state = last.stateBefore, filter.admits(room.roomID) else { return [] }
        let tree = StateTree(rows: database.stateRows, room: room.nid)
        var events: [StoredEvent] = []
        for event in try await database.events(try await tree.entries(in: state, reader).map(\.event), reader)
        where try await filter.admits(event, context, room.version) { events.append(event) }
        guard filter.lazyLoadsMembers else { return events }
        let users = Set(try await database.users(Array(Set(shown.map(\.sender)))).values.map(\.string))
        return try events.filter { event in
            let parsed = try context.parse(event, room.version)
            return parsed.type != "m.room.member" || parsed.stateKey.map { users.contains($0) } ?? false
        }
    }

    /// Places by which timestamps may stray from the room's order, and events that are looked at for one of the right time.
    private static let straying: Int64 = 20
    private static let mostSearched = 500

    /// The event nearest to a time, in a direction (`GET /rooms/{roomId}/timestamp_to_event`).
    ///
    /// Timestamps are claims of servers and follow the room's order only roughly; the search goes by them alone.
    public func event(
        in roomID: RoomID, nearest timestamp: Int64, forwards: Bool, for requester: Requester
    ) async throws -> (EventID, Int64) {
        let (room, access) = try await rooms.readable(roomID, by: requester)
        let found: (EventID, Int64)? = try await database.read { reader in
            var visibility = try await EventVisibility(
                self.context, room: room, user: requester.userID, nid: requester.nid, access: access, reader: reader)
            let depth = try await self.database.depth(
                in: room.nid, from: timestamp, upTo: room.record.depth, reader)
            // Timestamps that stray from the order stray by little: the neighbours on both sides are looked at.
            let start = Database.OrderedPlace(
                depth: forwards ? depth - Self.straying : depth + Self.straying, position: forwards ? .min : .max)
            let candidates = try await self.database.timeline(
                of: room.nid, from: start, backwards: !forwards, limit: Self.mostSearched, reader)
            for event in try await self.database.events(candidates, reader) {
                let isOnSide = forwards ? event.originServerTS >= timestamp : event.originServerTS <= timestamp
                if isOnSide, try await visibility.allows(event) { return (event.eventID, event.originServerTS) }
            }
            return nil
        }
        guard let found else { throw MatrixError.notFound("The room has no event on that side of the time.") }
        return found
    }
}
