import Database
import MatrixCore

/// Events of other servers (Server-Server API, "Checks performed on receipt of a PDU"). Their signatures and hashes have been
/// checked before.
extension RoomDraft {
    /// What became of an event.
    enum Reception: Sendable {
        case accepted
        /// Allowed where it was sent, but not by the current state, or not recommended by the room's policy server.
        case softFailed
        case rejected(String)
        /// It had come before.
        case known
    }

    /// Events that an event names and that are not here.
    struct Missing: Error {
        var previous: [EventID] = []
        var auth: [EventID] = []
    }

    /// Takes an event up at the end of the timeline, or rejects or soft-fails it.
    ///
    /// - Parameters:
    ///   - isRelayed: whether this server let it in, and so tells the others of it.
    ///   - given: the state before the event, as far as it doesn't follow from previous events that are here: for events behind a
    ///     gap.
    /// - Throws: ``Missing`` if events that it names have to be fetched first.
    mutating func receive(
        _ event: Event, isRelayed: Bool = false, stateBefore given: StateNID? = nil
    ) async throws -> Reception {
        let ground = try await ground(of: event)
        if let known = ground.known, !known.flags.contains(.outlier) || known.flags.contains(.rejected) {
            return .known
        }
        if !ground.missing.previous.isEmpty && given == nil || !ground.missing.auth.isEmpty { throw ground.missing }
        if let behind = try await behindHole(of: event) {
            let position = try await context.database.newBackfillPositions(1)
            return try await receive(event, before: behind.orderDepth, at: position, stateBefore: given)
        }
        let before = try await learning(
            ground.auth, in: try await state(before: event, ground, given), after: ground.previous)
        let flags: StoredEvent.Flags = isRelayed ? .outgoing : []
        if let reason = try await reasonToReject(event, ground.auth, before) {
            _ = try await keep(event, ground, flags: .rejected, stateBefore: before)
            return .rejected(reason)
        }
        // Where the room begins for this server, nothing is current but what the event was sent upon.
        if !tips.isEmpty {
            let current = try await learning(ground.auth, in: record.state)
            let isAllowed = try await reasonToRefuse(event, in: current, isCurrent: current == record.state) == nil
            guard isAllowed, try await isRecommended(event) else {
                _ = try await keep(event, ground, flags: .softFailed, stateBefore: before)
                return .softFailed
            }
        }
        let isEntry = tips.isEmpty
        let old = record.state
        if isEntry {
            record.state = before
            known = [:]
        }
        let redaction = try await waitingRedaction(of: event)
        let stored = try await add(
            event, nid: ground.known?.nid, isChained: ground.known?.chain != nil, flags: flags, stateBefore: before,
            previous: ground.previous.map(\.nid), auth: ground.auth.map(\.nid), redactedBy: redaction)
        if isEntry { try await noteEntry(from: old) }
        try await noteGap(before: stored, ground)
        return .accepted
    }

    /// Notes what is missing right before an event. Nobody goes back to what has no place in the timeline: what is missing before such
    /// an event is missing before those that were sent upon it, and the first of them that has a place takes it over.
    private mutating func noteGap(before stored: StoredEvent, _ ground: Ground) async throws {
        var missing = ground.missing.previous
        let isShown = stored.flags.isDisjoint(with: .hidden)
        for previous in ground.previous where !previous.flags.isDisjoint(with: [.softFailed, .rejected]) {
            var behind = gaps[previous.nid]
            if behind == nil { behind = try await context.database.gaps(before: [previous], reader).first?.missing }
            guard let behind, !behind.isEmpty else { continue }
            missing += behind.filter { !missing.contains($0) }
            guard isShown else { continue }
            write.closeGap(before: previous.nid, in: record.nid)
            gaps[previous.nid] = []
        }
        if missing.isEmpty { return }
        write.put(Gap(room: record.nid, before: stored.nid, missing: missing))
        gaps[stored.nid] = missing
    }

    /// Of what was missing before an event some has come.
    ///
    /// - Parameters:
    ///   - missing: what is still to come.
    ///   - come: what has. Where it has no place in the timeline, what is missing before it is missing here.
    mutating func renewGap(before behind: StoredEvent, missing: [EventID], come: [StoredEvent]) async throws {
        write.closeGap(before: behind.nid, in: record.nid)
        gaps[behind.nid] = []
        try await noteGap(before: behind, Ground(previous: come, missing: Missing(previous: missing)))
    }

    /// The event behind a gap that the event belongs into: it is history that comes late, neither news nor an end of the graph.
    private mutating func behindHole(of event: Event) async throws -> StoredEvent? {
        // What was sent upon all that is newest is upon whatever is behind gaps, and can't be before it.
        if tips.allSatisfy({ event.prevEvents.contains($0.eventID) }) { return nil }
        guard let behind = try await context.database.event(upon: event.eventID, in: record.nid, reader) else {
            return nil
        }
        return try await stored([behind]).first
    }

    /// The room begins anew for this server with the last event: everything may be other than it was.
    private mutating func noteEntry(from old: StateNID) async throws {
        guard var entry = added.popLast() else { return }
        entry.memberships = []
        entry.currentState = record.state
        added.append(entry)
        try await renewFacts()
        entry.memberships += try await membershipDifferences(from: old)
        added[added.count - 1] = entry
    }

    /// Keeps an event that is known without the room's history around it: it authorises others, or belongs to a state.
    ///
    /// - Throws: ``Missing`` if events that authorise it are not here.
    mutating func receiveOutlier(_ event: Event) async throws -> StoredEvent {
        let ground = try await ground(of: event)
        if let known = ground.known, known.isJudged { return known }
        if !ground.missing.auth.isEmpty { throw Missing(auth: ground.missing.auth) }
        let isRejected = try await reasonToReject(event, ground.auth, nil) != nil
        return try await keep(
            event, Ground(known: ground.known, auth: ground.auth),
            flags: isRejected ? [.outlier, .rejected] : .outlier, stateBefore: nil)
    }

    /// Takes up an event from before what is known here.
    ///
    /// - Parameters:
    ///   - position: one given out for events from before.
    ///   - depth: the order depth of the event behind the gap.
    ///   - given: as for ``receive(_:isRelayed:stateBefore:)``.
    mutating func receive(
        _ event: Event, before depth: Int64, at position: Int64, stateBefore given: StateNID?
    ) async throws -> Reception {
        let ground = try await ground(of: event)
        if let known = ground.known, !known.flags.contains(.outlier) || known.flags.contains(.rejected) {
            return .known
        }
        if !ground.missing.previous.isEmpty && given == nil || !ground.missing.auth.isEmpty { throw ground.missing }
        let before = try await learning(
            ground.auth, in: try await state(before: event, ground, given), after: ground.previous)
        if let reason = try await reasonToReject(event, ground.auth, before) {
            _ = try await keep(event, ground, flags: .rejected, stateBefore: before)
            return .rejected(reason)
        }
        let redaction = try await waitingRedaction(of: event)
        let stored = try await keep(
            event, ground, flags: [], stateBefore: before, orderDepth: depth, redactedBy: redaction, position: position)
        if redaction == nil, let (parent, type) = Self.relation(of: event) {
            try await relate(stored, to: parent, type: type, event)
        }
        // What it redacts may have been here all the time.
        if event.type == "m.room.redaction", let target = event.redacts {
            try await redact(target, by: event, stored.nid, isOurs: false)
        }
        return .accepted
    }

    /// What an event rests on, as far as it is here.
    struct Ground {
        var known: StoredEvent?
        var previous: [StoredEvent] = []
        var auth: [StoredEvent] = []
        var missing = Missing()
    }

    private func ground(of event: Event) async throws -> Ground {
        // From version 12 on the room's ID names the create event.
        let create = event.roomID.createEventID.flatMap { $0 == event.eventID ? nil : $0 }
        let found = try await find([event.eventID] + event.prevEvents + event.authEvents + (create.map { [$0] } ?? []))
        var ground = Ground(known: found[event.eventID])
        for id in event.prevEvents {
            // One without its place in the room is as good as not here.
            if let stored = found[id], stored.stateBefore != nil {
                ground.previous.append(stored)
            } else {
                ground.missing.previous.append(id)
            }
        }
        for id in event.authEvents {
            if let stored = found[id], stored.isJudged {
                ground.auth.append(stored)
            } else {
                ground.missing.auth.append(id)
            }
        }
        if let create, found[create] == nil { ground.missing.auth.append(create) }
        return ground
    }

    /// Events by their IDs, of this draft or stored.
    func find(_ ids: [EventID]) async throws -> [EventID: StoredEvent] {
        var found: [EventID: StoredEvent] = [:]
        for id in ids { found[id] = added[id]?.event ?? looked[id] ?? nil }
        let rest = ids.filter { found[$0] == nil && looked[$0] == nil }
        if rest.isEmpty { return found }
        return try await context.database.events(rest, reader).merging(found) { _, fresh in fresh }
    }

    /// Looks up what many events rest on at once, before they are taken up.
    mutating func lookAhead(_ events: [Event]) async throws {
        try await context.database.number(events)
        let ids = Set(events.flatMap { [$0.eventID] + $0.prevEvents + $0.authEvents })
        let found = try await context.database.events(Array(ids), reader)
        for id in ids { looked[id] = .some(found[id]) }
    }

    private mutating func state(before event: Event, _ ground: Ground, _ given: StateNID?) async throws -> StateNID {
        if given == nil, !ground.previous.isEmpty, Set(ground.previous.map(\.nid)) == Set(record.extremities) {
            return record.state
        }
        return try await merge((given.map { [$0] } ?? []) + (try await states(after: ground.previous)))
    }

    /// Checks 4 and 5: by its auth events, and by the state before it.
    private mutating func reasonToReject(
        _ event: Event, _ auth: [StoredEvent], _ before: StateNID?
    ) async throws -> String? {
        var state: [StateKey: Event] = [:]
        var events: [Event] = []
        for stored in auth {
            guard stored.room == record.nid else { return "It names an auth event of another room." }
            guard !stored.flags.contains(.rejected) else { return "It rests on an event that was rejected." }
            let event = try parsed(stored)
            events.append(event)
            if let key = event.stateMapKey { state[key] = event }
        }
        if let create = event.roomID.createEventID, create != event.eventID {
            guard let stored = try await find([create])[create], !stored.flags.contains(.rejected) else {
                return "The room's create event is missing."
            }
            state[.create] = try parsed(stored)
        }
        do {
            try Authorization.checkAuthEvents(event, authEvents: events)
            try Authorization.check(event, state: { state[$0] })
        } catch {
            return error.reason
        }
        guard let before else { return nil }
        return try await reasonToRefuse(event, in: before, isCurrent: false)
    }

    /// Why a state doesn't allow an event; nil if it does.
    mutating func reasonToRefuse(_ event: Event, in state: StateNID, isCurrent: Bool) async throws -> String? {
        var needed = Authorization.requiredStateKeys(for: event)
        if !needed.contains(.create) { needed.append(.create) }
        var events: [StateKey: Event] = [:]
        for key in needed {
            events[key] = isCurrent ? try await self.state(key) : try await self.state(key, in: state)
        }
        do {
            try Authorization.check(event, state: { events[$0] })
        } catch {
            return error.reason
        }
        return nil
    }

    /// The redaction that came before the event, if one applies to it.
    mutating func waitingRedaction(of event: Event) async throws -> EventNID? {
        var numbers = try await context.database.redactions(of: event.eventID, reader)
        numbers += waitingRedactions[event.eventID] ?? []
        for nid in numbers.sorted() {
            guard let redaction = try await self.event(nid), let stored = try await stored([nid]).first,
                stored.flags.isDisjoint(with: .hidden)
            else { continue }
            let levels = try await powerLevels()
            guard Authorization.redactionApplies(redaction, to: event, powerLevels: levels) else { continue }
            return nid
        }
        return nil
    }

    /// Keeps an event that doesn't stand at the end of the timeline.
    ///
    /// - Parameters:
    ///   - position: for events from before what is known.
    ///   - known: the event whose place it takes, where no state before it tells that.
    ///   - isJudged: whether its auth events are known, so that it has its place among what authorises others.
    mutating func keep(
        _ event: Event, _ ground: Ground, flags: StoredEvent.Flags, stateBefore: StateNID?, orderDepth: Int64? = nil,
        redactedBy: EventNID? = nil, position: Int64? = nil, isJudged: Bool = true,
        replacing known: EventNID? = nil
    ) async throws -> StoredEvent {
        let database = context.database
        var number = ground.known?.nid
        if number == nil { number = try await database.newEventNumbers(1) }
        guard let nid = number else { preconditionFailure("a number was taken above") }
        let auth = ground.auth.map(\.nid)
        var key: StateKeyNID?
        var replaces = known
        var stateAfter: StateNID?
        var chain = ground.known?.chain
        if let stateKey = event.stateMapKey {
            key = try await database.number(ofStateKey: stateKey)
            if let stateBefore, let key {
                replaces = try await tree.event(for: key, in: stateBefore, reader)
                if !flags.contains(.rejected) { stateAfter = try await change([key: nid], in: stateBefore) }
            }
            if isJudged, chain == nil {
                chain = try await chains.place(nid, authorisedBy: auth, replacing: replaces, database, reader)
            }
        }
        let stored = StoredEvent(
            nid: nid, eventID: event.eventID, room: record.nid, position: position,
            orderDepth: orderDepth ?? record.depth, type: try await database.number(ofType: event.type),
            sender: try await database.number(ofUser: event.sender), stateKey: key, stateBefore: stateBefore,
            flags: flags, originServerTS: event.originServerTS, redactedBy: redactedBy, replaces: replaces,
            chain: chain, previous: ground.previous.map(\.nid), auth: auth, transactionKey: nil,
            cuts: event.clientCuts, json: event.json, notifying: nil, stateAfter: stateAfter)
        let placing: Placing =
            switch (position, ground.known) {
            case (let position?, nil): .before(position)
            case (let position?, _): .beforeOfOutlier(position)
            case (nil, nil): .nowhere
            case (nil, _): .nowhereOfOutlier
            }
        added.append(Added(event: stored, parsed: event, placing: placing))
        // The room's row is the guard against other nodes, also where its present is as it was.
        record.timelineVersion += 1
        try await noteGap(before: stored, ground)
        return stored
    }
}
