import Database
import MatrixCore

/// States of a room that several servers write into: before and after each event, and merged where it forks
/// (Room Versions, "State resolution").
extension RoomDraft {
    /// The state after an event.
    struct StateAfter {
        let state: StateNID
        /// Nil for message events.
        var key: StateKeyNID?
        /// The state event whose place the event takes.
        var replaces: EventNID?
    }

    mutating func stateAfter(_ event: Event, _ nid: EventNID, in before: StateNID) async throws -> StateAfter {
        guard let key = event.stateMapKey else { return StateAfter(state: before) }
        let number = try await context.database.number(ofStateKey: key)
        let replaces = try await tree.event(for: number, in: before, reader)
        let state = try await change([number: nid], in: before)
        return StateAfter(state: state, key: number, replaces: replaces)
    }

    /// Another state that is like one but for some keys.
    mutating func change(_ changes: [StateKeyNID: EventNID?], in state: StateNID) async throws -> StateNID {
        let change = try await tree.change(changes, in: state, nextRow: record.nextStateRow, reader)
        record.nextStateRow += Int64(change.rows.count)
        stateRows += change.rows
        return change.state
    }

    /// The event that holds a key in a state.
    func state(_ key: StateKey, in state: StateNID) async throws -> Event? {
        guard let number = try await context.database.existingNumber(ofStateKey: key),
            let nid = try await tree.event(for: number, in: state, reader)
        else { return nil }
        return try await event(nid)
    }

    /// The state after an event that has its place in the room.
    mutating func state(after stored: StoredEvent) async throws -> StateNID {
        guard let before = stored.stateBefore else {
            throw DatabaseError.corrupt("the state before event \(stored.eventID) is missing")
        }
        guard let key = stored.stateKey, !stored.flags.contains(.rejected) else { return before }
        if let after = stored.stateAfter { return after }
        // It was written before states after events were kept.
        return try await change([key: stored.nid], in: before)
    }

    mutating func states(after events: [StoredEvent]) async throws -> [StateNID] {
        var states: [StateNID] = []
        for event in events { states.append(try await state(after: event)) }
        return states
    }

    /// The state that consists of these events. What it has in common with the current one is shared with it.
    mutating func state(of events: [StoredEvent]) async throws -> StateNID {
        var changes: [StateKeyNID: EventNID?] = [:]
        for entry in try await tree.entries(in: record.state, reader) { changes[entry.key] = .some(nil) }
        for event in events { if let key = event.stateKey { changes[key] = event.nid } }
        return try await change(changes, in: record.state)
    }

    /// One state out of several.
    mutating func merge(_ states: [StateNID]) async throws -> StateNID {
        var distinct: [StateNID] = []
        for state in states where !distinct.contains(state) { distinct.append(state) }
        guard let first = distinct.first else { return StateNID(0) }
        if distinct.count == 1 { return first }
        let conflict = try await Conflict(distinct, tree, context.database, reader)
        if conflict.keys.isEmpty { return first }
        let resolved = try await resolve(conflict)
        var changes: [StateKeyNID: EventNID?] = [:]
        for (key, number) in conflict.keys {
            let event = resolved[key]
            if event != conflict.entries[0][key] { changes[number] = .some(event) }
        }
        return try await change(changes, in: first)
    }

    /// Where several states of the room are not the same.
    private struct Conflict {
        let states: [StateNID]
        /// The keys at which they differ.
        let keys: [StateKey: StateKeyNID]
        /// For each state its events at those keys.
        let entries: [[StateKey: EventNID]]

        init(_ states: [StateNID], _ tree: StateTree, _ database: Database, _ reader: any Reader) async throws {
            self.states = states
            var numbers = Set<StateKeyNID>()
            for other in states.dropFirst() {
                for difference in try await tree.differences(from: states[0], to: other, reader) {
                    numbers.insert(difference.key)
                }
            }
            let names = try await database.stateKeys(numbers.sorted())
            keys = Dictionary(uniqueKeysWithValues: names.map { ($0.value, $0.key) })
            var entries: [[StateKey: EventNID]] = []
            for state in states {
                var own: [StateKey: EventNID] = [:]
                for (number, key) in names { own[key] = try await tree.event(for: number, in: state, reader) }
                entries.append(own)
            }
            self.entries = entries
        }

        var events: Set<EventNID> { Set(entries.flatMap(\.values)) }
    }

    /// The events that the states' keys in conflict come to.
    private mutating func resolve(_ conflict: Conflict) async throws -> [StateKey: EventNID] {
        let database = context.database
        let conflicted = try await stored(conflict.events)
        let difference = try await authDifference(conflict)
        let auth = Set(conflicted.flatMap(\.auth))
        let chain = try await database.authChain(through: auth.sorted(), with: chains, reader)
        guard chain.count + difference.count < Self.mostChainEvents else {
            throw DatabaseError.corrupt("the auth chains of room \(record.roomID) are too long to resolve its state")
        }
        var events: [EventID: Event] = [:]
        var numbers: [EventID: EventNID] = [:]
        var rejected = Set<EventID>()
        for stored in try await stored(conflict.events.union(chain).union(difference)) {
            events[stored.eventID] = try parsed(stored)
            numbers[stored.eventID] = stored.nid
            if stored.flags.contains(.rejected) { rejected.insert(stored.eventID) }
        }
        // What all states agree on, as far as anybody will ask for it.
        var shared: [StateKey: EventID] = [:]
        var asked = Set<StateKey>([.create, .powerLevels])
        for event in events.values {
            asked.formUnion(Authorization.requiredStateKeys(for: event))
            if let key = event.stateMapKey { asked.insert(key) }
        }
        let sharedNumbers = try await database.existingNumbers(ofStateKeys: asked.filter { conflict.keys[$0] == nil })
        for (key, number) in sharedNumbers {
            guard let nid = try await tree.event(for: number, in: conflict.states[0], reader),
                let stored = try await stored([nid]).first
            else { continue }
            shared[key] = stored.eventID
            numbers[stored.eventID] = nid
            events[stored.eventID] = try parsed(stored)
            if stored.flags.contains(.rejected) { rejected.insert(stored.eventID) }
        }
        let ids = Dictionary(uniqueKeysWithValues: numbers.map { ($0.value, $0.key) })
        let resolved: StateMap
        do {
            let shared = shared
            resolved = try StateResolution.resolve(
                differing: conflict.entries.map { $0.compactMapValues { ids[$0] } },
                chains: .known(Set(difference.compactMap { ids[$0] })), sharedEvent: { shared[$0] }, version: version,
                source: EventLookup(events, rejected: rejected))
        } catch {
            throw DatabaseError.corrupt("the state of room \(record.roomID) can't be resolved: \(error)")
        }
        return resolved.compactMapValues { numbers[$0] }
    }

    /// Events that are stored or in this draft.
    func stored(_ numbers: Set<EventNID>) async throws -> [StoredEvent] {
        if added.isEmpty, upcoming == nil, restated.isEmpty {
            return try await context.database.events(numbers.sorted(), reader)
        }
        var fresh = restated.filter { numbers.contains($0.key) }
        for nid in numbers { if let entry = added[nid] { fresh[nid] = entry.event } }
        if let upcoming, numbers.contains(upcoming.stored.nid) { fresh[upcoming.stored.nid] = upcoming.stored }
        return try await context.database.events(numbers.filter { fresh[$0] == nil }.sorted(), reader)
            + fresh.sorted { $0.key < $1.key }.map(\.value)
    }

    func parsed(_ stored: StoredEvent) throws -> Event {
        if let upcoming, stored.nid == upcoming.stored.nid { return upcoming.parsed }
        if let fresh = added[stored.nid] { return fresh.parsed }
        return try context.parse(stored, version)
    }

    /// Events that are looked at for a resolution at most: what a stranger can make grow.
    private static let mostChainEvents = 200_000

    /// The auth difference of the states (Room Version 2, "State resolution").
    private func authDifference(_ conflict: Conflict) async throws -> Set<EventNID> {
        let database = context.database
        let sets = conflict.entries.map { Array($0.values) }
        let difference = try await database.authDifference(of: sets, with: chains, reader)
        // What lies in the chains of events that all states have is in every chain. They need to be read only where that
        // could make something else than what is in conflict anyway.
        if difference.subtracting(conflict.events).isEmpty { return difference }
        let numbers = Set(conflict.keys.values)
        let shared = try await tree.entries(in: conflict.states[0], reader)
            .filter { !numbers.contains($0.key) }.map(\.event)
        return try await database.authDifference(of: sets.map { $0 + shared }, with: chains, reader)
    }

    /// Whose memberships are others in the current state than in the one before.
    mutating func membershipDifferences(from before: StateNID) async throws -> [MembershipChange] {
        let database = context.database
        let differences = try await tree.differences(from: before, to: record.state, reader)
        let keys = try await database.stateKeys(differences.map(\.key))
        // All of them at once: a room may come with thousands of members.
        let numbers = Set(differences.flatMap { [$0.old, $0.new].compactMap { $0 } })
        let events = Dictionary(try await stored(numbers).map { ($0.nid, $0) }) { $1 }
        let users = keys.values.compactMap { $0.type == "m.room.member" ? UserID($0.key) : nil }
        let userNumbers = try await database.numbers(ofUsers: users)
        func membership(_ nid: EventNID?) throws -> Membership? {
            try nid.flatMap { events[$0] }.flatMap { Membership(try parsed($0).content["membership"]) }
        }
        var changes: [MembershipChange] = []
        for difference in differences {
            guard let key = keys[difference.key] else { continue }
            if key == .joinRules || key == .historyVisibility { write.setOpen(try await isOpen(), record.nid) }
            guard key.type == "m.room.member", let user = UserID(key.key), let nid = difference.new ?? difference.old
            else { continue }
            changes.append(
                try await membershipChange(
                    of: user, to: try membership(difference.new) ?? .leave, nid, from: try membership(difference.old),
                    byOther: events[nid]?.sender != userNumbers[user]))
        }
        return changes
    }
}
