import Database
import MatrixCore

/// Rooms that this server has joined without being told of all their members (MSC3706, MSC3902).
///
/// The state is that of the answer to the join and what follows from it; a member who isn't in it may be anything. Who sends an
/// event names their own member event, so those who speak become known. Once the members are there, the states of all that came
/// since are made anew, and what they don't allow is taken back.
extension RoomDraft {
    var isPartial: Bool { record.partialJoin != nil }

    /// The room's members are to be fetched: the last event is the one by which this server came in.
    ///
    /// - Parameter servers: those in the room, as the one says by which it was joined.
    mutating func becomePartial(_ servers: [ServerNID], via: ServerName) {
        guard let entry = added.last else { return }
        record.partialJoin = entry.event.nid
        write.put(
            PartialRoom(room: record.nid, via: via, servers: servers, since: context.surroundings.now()))
        for server in servers { write.countJoined(1, of: server, in: record.nid) }
    }

    /// A state with those members of it that events name and that aren't known otherwise.
    ///
    /// - Parameter previous: what it is the state after; nil for the current one.
    mutating func learning(
        _ auth: [StoredEvent], in state: StateNID, after previous: [StoredEvent]? = nil
    ) async throws -> StateNID {
        guard let join = record.partialJoin, let entry = try await stored([join]).first else { return state }
        let isOlder = previous?.contains { Self.hasCome($0, since: entry) } == false
        var changes: [StateKeyNID: EventNID?] = [:]
        for stored in auth where stored.room == record.nid && !stored.flags.contains(.rejected) {
            // Where its place in the graph is known, the states after it have it already, and no other can.
            if !stored.flags.contains(.outlier), isOlder || Self.hasCome(stored, since: entry) { continue }
            guard let key = stored.stateKey, try await tree.event(for: key, in: state, reader) == nil,
                try parsed(stored).type == "m.room.member"
            else { continue }
            changes[key] = .some(stored.nid)
        }
        return changes.isEmpty ? state : try await change(changes, in: state)
    }

    /// Whether an event has got its place in the room since this server's entry.
    private static func hasCome(_ event: StoredEvent, since entry: StoredEvent) -> Bool {
        if event.nid == entry.nid { return true }
        if event.flags.contains(.outlier) { return false }
        guard let position = event.position else { return event.orderDepth >= entry.orderDepth }
        // The entry may be of this draft, and whatever has a position is from before it.
        return entry.position.map { position > $0 } ?? false
    }

    /// The state before a user's join into a room that this server is in, as far as another server tells it: what it doesn't
    /// tell is taken to be as it is here.
    mutating func state(with events: [StoredEvent]) async throws -> StateNID {
        var changes: [StateKeyNID: EventNID?] = [:]
        for event in events {
            if let key = event.stateKey, try await tree.event(for: key, in: record.state, reader) != event.nid {
                changes[key] = .some(event.nid)
            }
        }
        return changes.isEmpty ? record.state : try await change(changes, in: record.state)
    }

    /// This server comes into a room in whose state it is already, though it doesn't know: that was after a backup which it has been
    /// restored from. Others know devices of those users as they were, and are to ask for them again.
    mutating func tellDevicesOfForgotten(in state: [StoredEvent]) async throws {
        let keys = try await context.database.stateKeys(state.compactMap(\.stateKey))
        for stored in state {
            guard let key = stored.stateKey.flatMap({ keys[$0] }), key.type == "m.room.member",
                let user = UserID(key.key), user.server == context.serverName,
                try parsed(stored).content["membership"]?.isString("join") == true,
                let nid = try await context.database.existingNumber(ofUser: user)
            else { continue }
            write.changeDeviceList(of: nid)
        }
    }

    /// The room's members are known.
    ///
    /// - Parameter told: for the event by which this server came in, and the joins that were taken up since upon what isn't here:
    ///   the IDs of the events of the whole state before each.
    /// - Returns: those of these events that it isn't told for; none if the room is whole.
    mutating func becomeWhole(_ told: [EventNID: [EventID]]) async throws -> [StoredEvent] {
        guard let join = record.partialJoin else { return [] }
        let numbers = try await context.database.placedEvents(of: record.nid, from: join, reader)
        let events = Dictionary(uniqueKeysWithValues: try await stored(Set(numbers)).map { ($0.nid, $0) })
        let lacking = try numbers.compactMap { events[$0] }
            .filter { event in try told[event.nid] == nil && (event.nid == join || hasPartialGround(event)) }
        if !lacking.isEmpty { return lacking }
        guard let entry = events[join] else {
            throw DatabaseError.corrupt("the join into room \(record.roomID) is missing")
        }
        let old = record.state
        var given: [EventNID: StateNID] = [:]
        var unheard: [StoredEvent] = []
        for (nid, ids) in told.sorted(by: { $0.key < $1.key }) {
            let state = try await members(ofState: ids)
            given[nid] = try await self.state(of: state)
            guard nid == join else { continue }
            // Who came in since and has left is in the timeline.
            unheard = try await leaves(unknownTo: state).filter { events[$0.nid] == nil }
            try await tellDevicesOfForgotten(in: state)
        }
        try await restate(numbers, events, given)
        if let before = given[join] { unheard = try await restate(unheard, upon: before) }
        try await walk(
            from: [restated[join] ?? entry] + unheard,
            events.values.filter { ($0.position ?? 0) > (entry.position ?? 0) })
        try await endPartial()
        record.stateVersion += 1
        record.timelineVersion += 1
        known = [:]
        try await renewFacts()
        let position = write.takePosition()
        write.setState(record.state, of: record.nid, from: position)
        // Each user is in them once, and many are of one server.
        let changes = try await membershipDifferences(from: old)
        for change in changes {
            write.setMembership(
                change.membership, of: change.user, in: record.nid, event: change.event, position: position,
                ending: change.ending, amongOthers: true)
        }
        let joined = Dictionary(changes.lazy.map { ($0.server, $0.joined) }, uniquingKeysWith: +)
        for (server, difference) in joined.sorted(by: { $0.key < $1.key }) where difference != 0 {
            write.countJoined(difference, of: server, in: record.nid)
        }
        return []
    }

    /// Whether the state before an event doesn't follow from the events that are here.
    private func hasHole(before event: StoredEvent) throws -> Bool {
        try event.previous.count < parsed(event).prevEvents.count
    }

    /// Whether an event was taken up upon a state of which its server told no members: another join. (What was fetched of the history
    /// came with a whole one.)
    private func hasPartialGround(_ event: StoredEvent) throws -> Bool {
        try (event.position ?? 0) > 0 && hasHole(before: event)
    }

    /// What was noted until the members are known doesn't count any more.
    mutating func endPartial() async throws {
        guard isPartial else { return }
        record.partialJoin = nil
        guard let partial = try await context.database.partialRoom(record.nid, reader) else { return }
        for server in partial.servers { write.countJoined(-1, of: server, in: record.nid) }
        write.dropPartial(record.nid)
    }

    /// Gives events the states that follow from others, and rejects those that these don't allow.
    ///
    /// - Parameter given: the states before some of them that don't follow from events that are here.
    private mutating func restate(
        _ numbers: [EventNID], _ affected: [EventNID: StoredEvent], _ given: [EventNID: StateNID]
    ) async throws {
        var begun: Set<EventNID> = []
        for number in numbers {
            // Each comes behind those that it was sent upon.
            var stack = [number]
            while let nid = stack.last {
                guard let event = affected[nid], restated[nid] == nil else {
                    stack.removeLast()
                    continue
                }
                if begun.insert(nid).inserted {
                    stack += event.previous.filter { affected[$0] != nil && restated[$0] == nil && !begun.contains($0) }
                    continue
                }
                stack.removeLast()
                let before: StateNID
                if let known = try given[nid] ?? (hasHole(before: event) ? event.stateBefore : nil) {
                    before = known
                } else {
                    let previous = try await stored(Set(event.previous)).map { restated[$0.nid] ?? $0 }
                    before = try await merge(try await states(after: previous))
                }
                var flags = event.flags
                if flags.isDisjoint(with: .hidden),
                    try await reasonToRefuse(try parsed(event), in: before, isCurrent: false) != nil
                {
                    flags.insert(.rejected)
                }
                var after: StateNID?
                var replaces: EventNID?
                if let key = event.stateKey {
                    replaces = try await tree.event(for: key, in: before, reader)
                    if !flags.contains(.rejected) { after = try await change([key: nid], in: before) }
                }
                let fresh = event.restated(before: before, after: after, replaces: replaces, flags: flags)
                restated[nid] = fresh
                write.restate(fresh)
                if flags != event.flags { try await hide(fresh) }
            }
        }
    }

    /// Takes back what an event has done that is not part of the room's history after all.
    private mutating func hide(_ stored: StoredEvent) async throws {
        write.hide(stored.nid, in: record.nid)
        let event = try parsed(stored)
        if let (parent, _) = Self.relation(of: event) {
            write.unrelate(stored.nid)
            if let known = try await context.database.event(parent) { outdated.append(known.nid) }
        }
        guard event.type == "m.room.redaction", let target = event.redacts else { return }
        write.takeBack(redaction: stored.nid, of: target)
        guard let known = try await context.database.event(target), known.redactedBy == stored.nid else { return }
        outdated.append(known.nid)
        if let other = try await waitingRedaction(of: try parsed(known)) {
            // It did nothing because this one had come before it.
            write.redact(target, by: other, overwriteAt: context.surroundings.now() + context.keepRedacted)
        } else {
            write.enqueueForSearch(known.nid, in: record.nid)
        }
    }

    /// What was sent from here before this server came in: what followed from it then may have lacked members, too.
    private mutating func restate(_ leaves: [StoredEvent], upon before: StateNID) async throws -> [StoredEvent] {
        var fresh: [StoredEvent] = []
        for leave in leaves {
            guard let key = leave.stateKey else { continue }
            let again = leave.restated(
                before: before, after: try await change([key: leave.nid], in: before),
                replaces: try await tree.event(for: key, in: before, reader), flags: leave.flags)
            restated[leave.nid] = again
            write.restate(again)
            fresh.append(again)
        }
        return fresh
    }

    /// Goes through the timeline once more with the states that are now known, as the events came: takes up what follows from each,
    /// and soft-fails what wasn't allowed by what was current when it came.
    ///
    /// - Parameter begin: the event by which this server came in, and what was sent from here before and hadn't been heard then.
    private mutating func walk(from begin: [StoredEvent], _ events: [StoredEvent]) async throws {
        var ends = begin
        var merged = try await states(after: ends)
        var current = try await merge(merged)
        for event in events.sorted(by: { ($0.position ?? 0) < ($1.position ?? 0) }) {
            guard let event = restated[event.nid], let before = event.stateBefore,
                event.flags.isDisjoint(with: .hidden)
            else { continue }
            if before != current, try await reasonToRefuse(try parsed(event), in: current, isCurrent: false) != nil {
                let refused = event.restated(
                    before: before, after: event.stateAfter, replaces: event.replaces,
                    flags: event.flags.union(.softFailed))
                restated[event.nid] = refused
                write.restate(refused)
                try await hide(refused)
                continue
            }
            ends.removeAll { event.previous.contains($0.nid) }
            let isUponAll = ends.isEmpty && before == current
            ends.append(event)
            if isUponAll {
                current = try await state(after: event)
            } else {
                // A message leaves the states as they were.
                let states = try await states(after: ends.reversed())
                if states != merged { current = try await merge(states) }
                merged = states
            }
        }
        tips = try ends.map { Tip(nid: $0.nid, eventID: $0.eventID, depth: try parsed($0).depth) }
        record.extremities = tips.map(\.nid)
        record.state = current
    }
}
