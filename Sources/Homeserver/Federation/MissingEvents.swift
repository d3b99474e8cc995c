import Database
import Logging
import MatrixCore
import Synchronization

/// Fetches what events rest on and this server doesn't have (Server-Server API, "Retrieving events", "Backfilling and retrieving
/// missing events"). With bounds on all that it fetches; outside of the rooms' queues.
final class MissingEvents: Sendable {
    let rooms: FederatedRooms
    let client: FederationClient
    let intake: EventIntake
    private let logger: Logger

    /// Events that are asked for at once, and how often, before a gap is left as it is.
    private static let page = 50
    private static let mostPages = 6
    /// Events of a state that are fetched one by one; if more are missing the whole state is.
    private static let mostSingles = 50
    private static let singlesAtOnce = 8
    private static let stateBytes = 200 << 20
    private static let timeout: Int64 = 60_000
    /// Servers that are asked in turn.
    private static let mostServers = 5
    /// Milliseconds for which a gap that nobody could fill is left alone.
    private static let rest: Int64 = 60_000

    /// Until when gaps that nobody could fill are left alone, by the events behind them. The lock protects the cache.
    private let unfilled = Mutex(BoundedCache<EventNID, Int64>(capacity: 2_000))

    init(rooms: FederatedRooms, client: FederationClient, intake: EventIntake, logger: Logger) {
        self.rooms = rooms
        self.client = client
        self.intake = intake
        self.logger = logger
    }

    /// Takes an event up together with what it rests on, as far as it can be had.
    ///
    /// - Throws: ``FederationFailure`` if nobody can say what the room was before it.
    func receive(_ event: Event, in room: Room, from server: ServerName) async throws -> RoomDraft.Reception {
        do {
            return try await take(event, in: room)
        } catch let missing as RoomDraft.Missing {
            // Before what belongs into a hole there is history: it is fetched when somebody goes back to it.
            let behind = try await rooms.database.read {
                try await self.rooms.database.event(upon: event.eventID, in: room.nid, $0)
            }
            if !missing.previous.isEmpty, behind == nil { try await fetchBefore(event, in: room, from: server) }
        }
        do {
            return try await take(event, in: room)
        } catch let missing as RoomDraft.Missing {
            if !missing.auth.isEmpty { try await fetchAuthChain(of: event, in: room, from: server) }
            if missing.previous.isEmpty { return try await take(event, in: room) }
        }
        return try await takeBehindGap(event, in: room, from: server)
    }

    private func take(_ event: Event, in room: Room) async throws -> RoomDraft.Reception {
        let event = try await rooms.vouchedFor([event], in: room)[0]
        return try await rooms.rooms.perform(in: room) { draft in
            defer { draft.write.unstage(event.eventID) }
            return try await draft.receive(event)
        }
    }

    // MARK: - Events before

    /// Fetches the events between what is known and an event, and takes them up, oldest first.
    private func fetchBefore(_ event: Event, in room: Room, from server: ServerName) async throws {
        var fetched: [EventID: Event] = [:]
        var latest = [event.eventID]
        for _ in 0..<Self.mostPages {
            let earliest = try await rooms.database.events(room.record.extremities).map(\.eventID)
            let question: JSON = [
                "earliest_events": .array(earliest.prefix(20).map { .string($0.string) }),
                "latest_events": .array(latest.map { .string($0.string) }), "limit": .integer(Int64(Self.page)),
                "min_depth": 0,
            ]
            let path = FederationClient.path("/_matrix/federation/v1/get_missing_events", room.roomID.string)
            guard let answer = try? await client.post(path, question, to: server) else { break }
            let views = answer["events"]?.elements.prefix(Self.page).map { $0 } ?? []
            let events = try await intake.check(views, in: room.roomID, room.version).compactMap { try? $0.get() }
            let new = events.filter { fetched[$0.eventID] == nil && $0.eventID != event.eventID }
            for event in new { fetched[event.eventID] = event }
            if new.isEmpty { break }
            // What the oldest of them name and nobody has is the next to be asked for.
            let named = Set(fetched.values.flatMap(\.prevEvents)).subtracting(fetched.keys)
            let known = try await rooms.database.read { try await self.rooms.database.events(Array(named), $0) }
            let open = named.filter { known[$0]?.stateBefore == nil }
            if open.isEmpty { break }
            latest = fetched.values.filter { $0.prevEvents.contains(where: open.contains) }.map(\.eventID).sorted()
            latest = Array(latest.prefix(20))
        }
        for earlier in EventIntake.sorted(Array(fetched.values).sorted { $0.depth < $1.depth }, by: \.prevEvents) {
            do {
                _ = try await take(earlier, in: room)
            } catch let missing as RoomDraft.Missing {
                if !missing.auth.isEmpty { try await fetchAuthChain(of: earlier, in: room, from: server) }
                if missing.previous.isEmpty {
                    _ = try await take(earlier, in: room)
                } else {
                    // From before this server was in the room, perhaps, so that nobody tells it the state there. What comes
                    // behind it is placed without it.
                    do { _ = try await takeBehindGap(earlier, in: room, from: server) } catch is FederationFailure {}
                }
            }
        }
    }

    /// Takes an event up though events before it are missing: the state before it is what servers in the room say.
    private func takeBehindGap(
        _ event: Event, in room: Room, from server: ServerName
    ) async throws -> RoomDraft.Reception {
        // A whole state has no place in a room that isn't whole; it waits until that is.
        guard room.record.partialJoin == nil else {
            throw FederationFailure(server: server, reason: "the room's members are still being fetched")
        }
        let state = try await fetchState(before: event, in: room, from: server)
        return try await rooms.rooms.perform(in: room) { draft in
            let given = try await draft.state(of: state)
            defer { draft.write.unstage(event.eventID) }
            return try await draft.receive(event, stateBefore: given)
        }
    }

    // MARK: - States and auth chains

    /// Fetches the state before an event; its events and what authorises them are kept.
    ///
    /// - Returns: the IDs of the events of the state.
    func fetchState(before event: Event, in room: Room, from server: ServerName) async throws -> [EventID] {
        var failure = FederationFailure(server: server, reason: "nobody could be asked")
        var candidates = [server]
        candidates += try await rooms.servers(in: room).filter { $0 != server }.prefix(Self.mostServers - 1)
        for candidate in candidates where candidate != rooms.context.serverName {
            do {
                return try await fetchState(at: event.eventID, in: room, of: candidate)
            } catch let error as FederationFailure {
                failure = error
            }
        }
        throw failure
    }

    func fetchState(at eventID: EventID, in room: Room, of server: ServerName) async throws -> [EventID] {
        let query = [("event_id", eventID.string)]
        let answer = try await client.get(
            FederationClient.path("/_matrix/federation/v1/state_ids", room.roomID.string, query: query), from: server,
            timeout: Self.timeout, mostBytes: Self.stateBytes)
        let state = answer["pdu_ids"]?.elements.compactMap { $0.string.flatMap { EventID($0) } } ?? []
        let chain = answer["auth_chain_ids"]?.elements.compactMap { $0.string.flatMap { EventID($0) } } ?? []
        guard !state.isEmpty else { throw FederationFailure(server: server, reason: "it tells of an empty state") }
        let all = Array(Set(state + chain))
        let known = try await rooms.database.read { try await self.rooms.database.events(all, $0) }
        let missing = all.filter { known[$0]?.isJudged != true }.sorted()
        if missing.count > Self.mostSingles {
            let whole = try await client.get(
                FederationClient.path("/_matrix/federation/v1/state", room.roomID.string, query: query), from: server,
                timeout: Self.timeout, mostBytes: Self.stateBytes)
            let events = (whole["pdus"]?.elements.map { $0 } ?? []) + (whole["auth_chain"]?.elements.map { $0 } ?? [])
            try await keep(try await intake.valid(events, in: room.roomID, room.version), in: room)
        } else if !missing.isEmpty {
            try await keep(try await fetch(missing, in: room, from: server), in: room)
        }
        return state
    }

    /// Fetches events one by one, those of them that the server has.
    ///
    /// - Throws: ``FederationFailure`` if one doesn't come although it may be there: a state would have a hole that nobody sees.
    private func fetch(_ ids: [EventID], in room: Room, from server: ServerName) async throws -> [Event] {
        var found: [JSONView] = []
        for start in stride(from: 0, to: ids.count, by: Self.singlesAtOnce) {
            let part = ids[start..<min(start + Self.singlesAtOnce, ids.count)]
            found += try await withThrowingTaskGroup(of: JSONView?.self) { group in
                for id in part {
                    group.addTask {
                        let path = FederationClient.path("/_matrix/federation/v1/event", id.string)
                        do {
                            return try await self.client.get(path, from: server)["pdus"]?.elements.first { _ in true }
                        } catch let failure as FederationFailure where [400, 403, 404].contains(failure.status) {
                            return nil
                        }
                    }
                }
                return try await group.reduce(into: []) { found, one in if let one { found.append(one) } }
            }
        }
        let wanted = Set(ids)
        return try await intake.valid(found, in: room.roomID, room.version).filter { wanted.contains($0.eventID) }
    }

    /// Fetches what authorises an event.
    private func fetchAuthChain(of event: Event, in room: Room, from server: ServerName) async throws {
        let path = FederationClient.path(
            "/_matrix/federation/v1/event_auth", room.roomID.string, event.eventID.string)
        guard
            let answer = try? await client.get(
                path, from: server, timeout: Self.timeout, mostBytes: Self.stateBytes)
        else { return }
        let events = answer["auth_chain"]?.elements.map { $0 } ?? []
        try await keep(try await intake.valid(events, in: room.roomID, room.version), in: room)
    }

    /// Keeps events that come without the history around them.
    private func keep(_ events: [Event], in room: Room) async throws {
        for start in stride(from: 0, to: events.count, by: 500) {
            let part = events[start..<min(start + 500, events.count)]
            try await rooms.rooms.perform(in: room) { draft in
                try await draft.lookAhead(Array(part))
                for event in part {
                    do { _ = try await draft.receiveOutlier(event) } catch is RoomDraft.Missing {
                        // What can't be authorised is no part of the room.
                    }
                }
            }
        }
    }

    // MARK: - Backfill

    /// Whether nobody has been asked lately to fill a gap who couldn't.
    func mayFill(_ gap: Gap) -> Bool {
        guard let rest = unfilled.withLock({ $0[gap.before] }) else { return true }
        return rest <= rooms.context.surroundings.now()
    }

    /// Fetches history from before an event behind a gap (Server-Server API, "Backfilling").
    ///
    /// - Returns: whether anything came.
    func backfill(_ gap: Gap, in room: Room, limit: Int) async throws -> Bool {
        if try await fill(gap, in: room, limit: limit) { return true }
        // Who asks no more hasn't asked all.
        try Task.checkCancellation()
        let rest = rooms.context.surroundings.now() + Self.rest
        unfilled.withLock { $0.insert(rest, for: gap.before, size: 1) }
        return false
    }

    private func fill(_ gap: Gap, in room: Room, limit: Int) async throws -> Bool {
        guard let behind = try await rooms.database.events([gap.before]).first else { return false }
        let known = try await rooms.database.read { try await self.rooms.database.events(gap.missing, $0) }
        if gap.missing.allSatisfy({ known[$0]?.stateBefore != nil }) {
            // It has come by another way.
            try await renew(gap, before: behind, in: room)
            return true
        }
        let present = Array(try await rooms.servers(in: room).prefix(Self.mostServers))
        let former = try await rooms.formerServers(of: room, limit: Self.mostServers)
        for server in present + former where !client.health.isResting(server) {
            let query = gap.missing.prefix(20).map { ("v", $0.string) } + [("limit", String(min(max(limit, 20), 100)))]
            let path = FederationClient.path("/_matrix/federation/v1/backfill", room.roomID.string, query: query)
            guard let answer = try? await client.get(path, from: server) else { continue }
            let views = answer["pdus"]?.elements.prefix(100).map { $0 } ?? []
            let events = try await intake.check(views, in: room.roomID, room.version).compactMap { try? $0.get() }
            // Who isn't there any more is believed about events, which their servers have signed, and about no state.
            let asked = present.contains(server) ? server : present.first
            if try await takeUp(events, before: behind, gap, in: room, from: server, stateOf: asked) { return true }
        }
        return false
    }

    /// - Parameter witness: who is asked first for the state before an event, where it doesn't follow from what is here; nil for nobody.
    private func takeUp(
        _ events: [Event], before behind: StoredEvent, _ gap: Gap, in room: Room, from server: ServerName,
        stateOf witness: ServerName?
    ) async throws -> Bool {
        let known = try await rooms.database.read { try await self.rooms.database.events(events.map(\.eventID), $0) }
        let new = EventIntake.sorted(
            events.filter { known[$0.eventID]?.stateBefore == nil }.sorted { $0.depth < $1.depth }, by: \.prevEvents)
        // Only what leads to the event behind the gap belongs here.
        var wanted = Set(gap.missing)
        var chosen: [Event] = []
        for event in new.reversed() where wanted.contains(event.eventID) {
            chosen.append(event)
            wanted.formUnion(event.prevEvents)
        }
        if chosen.isEmpty { return false }
        // The nearest to what is known gets the highest position.
        let first = try await rooms.database.newBackfillPositions(chosen.count)
        let positions = Dictionary(
            uniqueKeysWithValues: chosen.enumerated().map { ($1.eventID, first - Int64($0)) })
        var came = false
        for event in chosen.reversed() {
            guard let position = positions[event.eventID] else { continue }
            do {
                let reception = try await takeBefore(event, behind, at: position, in: room, state: nil)
                if case .accepted = reception { came = true }
            } catch let missing as RoomDraft.Missing {
                if !missing.auth.isEmpty { try await fetchAuthChain(of: event, in: room, from: server) }
                var state: [EventID]?
                if !missing.previous.isEmpty {
                    guard let witness, let fetched = try? await fetchState(before: event, in: room, from: witness)
                    else { continue }
                    state = fetched
                }
                let reception = try? await takeBefore(event, behind, at: position, in: room, state: state)
                if case .accepted? = reception { came = true }
            }
        }
        if came { try await renew(gap, before: behind, in: room) }
        return came
    }

    /// Notes what of a gap is still missing.
    private func renew(_ gap: Gap, before behind: StoredEvent, in room: Room) async throws {
        let here = try await rooms.database.read { try await self.rooms.database.events(gap.missing, $0) }
            .filter { $0.value.stateBefore != nil }
        let missing = gap.missing.filter { here[$0] == nil }
        try await rooms.rooms.perform(in: room) { draft in
            try await draft.renewGap(before: behind, missing: missing, come: Array(here.values))
        }
    }

    private func takeBefore(
        _ event: Event, _ behind: StoredEvent, at position: Int64, in room: Room, state: [EventID]?
    ) async throws -> RoomDraft.Reception {
        try await rooms.rooms.perform(in: room) { draft in
            let given = try await state.asyncMap { try await draft.state(of: $0) }
            return try await draft.receive(event, before: behind.orderDepth, at: position, stateBefore: given)
        }
    }
}

extension RoomDraft {
    /// The state that consists of the events with these IDs that are here and were not rejected.
    mutating func state(of ids: [EventID]) async throws -> StateNID {
        try await state(of: try await members(ofState: ids))
    }

    /// Those of the events with these IDs that are here and were not rejected.
    func members(ofState ids: [EventID]) async throws -> [StoredEvent] {
        try await find(ids).values.filter {
            $0.room == record.nid && $0.isJudged && !$0.flags.contains(.rejected)
        }
    }
}
