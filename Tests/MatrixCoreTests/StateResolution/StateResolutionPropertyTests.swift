import Testing

@testable import MatrixCore

/// What has to hold for every room, whatever happened in it.
@Suite("State resolution, properties") struct StateResolutionPropertyTests {
    static let cases: [(RoomVersion, UInt64)] = RoomVersion.all.flatMap { version in
        (0..<6).map { (version, UInt64($0)) }
    }

    func merges(_ room: inout RoomSimulation, _ count: Int) -> [[StateMap]] {
        (0..<count).map { _ in
            (0..<2 + room.random.below(3)).compactMap { _ in room.stateAfter[room.random.pick(room.events).eventID] }
        }
    }

    @Test("the order of the states does not matter, nor does having one twice", arguments: cases)
    func order(version: RoomVersion, seed: UInt64) throws {
        var room = try RoomSimulation(version, seed: seed, events: 40)
        for states in merges(&room, 15) {
            let result = try StateResolution.resolve(states, version: version, source: room.source)
            for _ in 0..<3 {
                let shuffled = states.shuffled(using: &room.random)
                #expect(try StateResolution.resolve(shuffled, version: version, source: room.source) == result)
            }
            #expect(try StateResolution.resolve(states + [states[0]], version: version, source: room.source) == result)
        }
    }

    @Test("resolving what is resolved changes nothing", arguments: cases)
    func idempotence(version: RoomVersion, seed: UInt64) throws {
        var room = try RoomSimulation(version, seed: seed, events: 40)
        for states in merges(&room, 15) {
            let result = try StateResolution.resolve(states, version: version, source: room.source)
            #expect(try StateResolution.resolve([result], version: version, source: room.source) == result)
            #expect(try StateResolution.resolve([result, result], version: version, source: room.source) == result)
        }
        for state in room.stateAfter.values {
            #expect(try StateResolution.resolve([state, state, state], version: version, source: room.source) == state)
        }
    }

    @Test("replicas that get the same events in another order have the same states", arguments: cases)
    func replicas(version: RoomVersion, seed: UInt64) throws {
        var room = try RoomSimulation(version, seed: seed, events: 40)
        var known: [EventID: Event] = [:]
        var states: [EventID: StateMap] = [:]
        var waiting = room.events.shuffled(using: &room.random)
        while !waiting.isEmpty {
            guard let next = waiting.firstIndex(where: { $0.prevEvents.allSatisfy { states[$0] != nil } }) else {
                break
            }
            let event = waiting.remove(at: next)
            // A replica that got the bytes from the network.
            let copy = try Event(receiving: event.json, version: version)
            known[copy.eventID] = copy
            var state = try StateResolution.resolve(
                copy.prevEvents.reversed().compactMap { states[$0] }, version: version, source: EventLookup(known))
            if let key = copy.stateMapKey { state[key] = copy.eventID }
            states[copy.eventID] = state
        }
        #expect(states == room.stateAfter)
    }

    @Test(
        "no event gets into the result that was not in a state or its auth chain, or was not allowed", arguments: cases)
    func authorised(version: RoomVersion, seed: UInt64) throws {
        var room = try RoomSimulation(version, seed: seed, events: 40)
        for states in merges(&room, 10) {
            let result = try StateResolution.resolve(states, version: version, source: room.source)
            let inStates = Set(states.flatMap(\.values))
            let chains = try AuthChains.chain(of: inStates.sorted(), version: version, source: room.source)
            for (key, id) in result {
                #expect(inStates.contains(id) || chains.contains(id))
                #expect(room.byID[id]?.stateMapKey == key)
            }
            // What all states agree on is kept.
            for (key, id) in states[0] where states.allSatisfy({ $0[key] == id }) { #expect(result[key] == id) }
        }
    }

    @Test(
        "A01 an event that nobody was allowed to send does not get in by way of a claimed state",
        arguments: cases.filter { $0.0 != .v1 })
    func rogue(version: RoomVersion, seed: UInt64) throws {
        var room = try RoomSimulation(version, seed: seed, events: 30)
        for _ in 0..<15 {
            let base = try #require(room.stateAfter[room.random.pick(room.events).eventID])
            let sender = room.random.pick(["@mallory:hs9"] + RoomSimulation.users)
            let attacks: [(String, String, JSON)] = [
                ("m.room.power_levels", "", ["users": [sender: 1_000], "users_default": 100]),
                ("m.room.member", RoomSimulation.users[0], ["membership": "ban"]),
                ("m.room.join_rules", "", ["join_rule": "invite"]),
                ("m.room.topic", "", ["topic": "pwned"]),
            ]
            let (type, stateKey, content) = room.random.pick(attacks)
            let event = try room.make(
                type, sender, stateKey, content, prevs: [room.events[0].eventID], state: base)
            if room.isAllowed(event, in: base) { continue }
            var claimed = base
            claimed[StateKey(type, stateKey)] = event.eventID
            var known = room.byID
            known[event.eventID] = event
            let result = try StateResolution.resolve([base, claimed], version: version, source: EventLookup(known))
            #expect(!result.values.contains(event.eventID), "\(type) by \(sender)")
        }
    }

    @Test("resolving only the differences is the same as resolving whole states", arguments: cases)
    func differences(version: RoomVersion, seed: UInt64) throws {
        var room = try RoomSimulation(version, seed: seed, events: 40)
        for states in merges(&room, 10) {
            let whole = try StateResolution.resolve(states, version: version, source: room.source)
            let keys = Set(states.flatMap(\.keys))
            let shared = keys.filter { key in states.allSatisfy { $0[key] == states[0][key] } }
            let base = states[0].filter { shared.contains($0.key) }
            let parts = try StateResolution.resolve(
                differing: states.map { $0.filter { !shared.contains($0.key) } },
                chains: .of(shared: Array(base.values)),
                sharedEvent: { base[$0] }, version: version, source: room.source)
            #expect(base.merging(parts) { old, _ in old } == whole)
        }
    }
}
