import Testing

@testable import MatrixCore

/// A13: auth chains that are made to cost, and what happens instead.
@Suite("State resolution, limits") struct StateResolutionLimitTests {
    /// A chain of power level events, each resting on the one before, and two states at its end.
    struct Chain {
        var events: [EventID: Event] = [:]
        var states: [StateMap] = []

        init(_ version: RoomVersion, length: Int) throws {
            var room = try RoomBuilder.room(version, powerLevels: ["users": ["@mod:hs": 50]])
            if version.number < 12 {
                room = try RoomBuilder.room(version, powerLevels: ["users": ["@creator:hs": 100, "@mod:hs": 50]])
            }
            let content = try #require(room.state[.powerLevels]).content.json
            for number in 0..<length {
                var next = content
                next["users"]?["@x\(number):hs"] = 1
                try room.add("m.room.power_levels", sender: "@creator:hs", stateKey: "", content: next)
            }
            for name in ["one", "two"] {
                var fork = room
                // In versions 1 and 2 the builder counts event IDs up: let the forks differ.
                if name == "two" { _ = try fork.make("x", sender: "@creator:hs") }
                let event = try fork.add(
                    "m.room.topic", sender: "@creator:hs", stateKey: "", content: ["topic": .string(name)])
                for event in fork.events { events[event.eventID] = event }
                states.append(fork.state.mapValues(\.eventID))
                events[event.eventID] = event
            }
        }
    }

    @Test(
        "A13 a long chain is resolved, without recursion", .timeLimit(.minutes(1)),
        arguments: [RoomVersion.v1, .v2, .v11, .v12])
    func longChain(version: RoomVersion) throws {
        let chain = try Chain(version, length: 600)
        let result = try StateResolution.resolve(chain.states, version: version, source: EventLookup(chain.events))
        #expect(result.count == chain.states[0].count)
    }

    @Test("A13 beyond the limits there is an error and no hour of work", arguments: [RoomVersion.v2, .v12])
    func limits(version: RoomVersion) throws {
        let chain = try Chain(version, length: 100)
        let source = EventLookup(chain.events)
        for limits in [StateResolutionLimits(maxEvents: 50), StateResolutionLimits(maxSteps: 50)] {
            let error = #expect(throws: StateResolutionError.self) {
                try StateResolution.resolve(chain.states, version: version, limits: limits, source: source)
            }
            #expect(error == .tooMuchWork)
        }
        let error = #expect(throws: StateResolutionError.self) {
            try StateResolution.resolve(
                Array(repeating: chain.states[0], count: 101), version: version, source: source)
        }
        #expect(error == .tooManyStates(101))
    }

    @Test("A13 many forward extremities with the same few differences", .timeLimit(.minutes(1)))
    func manyStates() throws {
        let chain = try Chain(.v11, length: 50)
        let states = (0..<100).map { chain.states[$0 % 2] }
        let result = try StateResolution.resolve(states, version: .v11, source: EventLookup(chain.events))
        #expect(try result == StateResolution.resolve(chain.states, version: .v11, source: EventLookup(chain.events)))
    }

    @Test("A13 auth events that form a cycle end the walk")
    func cycle() throws {
        // Impossible where IDs are hashes; versions 1 and 2 let a peer claim it.
        var room = try RoomBuilder.room(.v2)
        let base = room.state.mapValues(\.eventID)
        func json(_ id: String, auth: String, topic: JSON) throws -> Event {
            var json = try room.make("m.room.topic", sender: "@creator:hs", stateKey: "", content: ["topic": topic])
                .root.json
            json["event_id"] = .string(id)
            json["auth_events"]?.appendElement([.string(auth), [:]])
            return try Event(receiving: json.encoded(), version: .v2)
        }
        let one = try json("$one:hs", auth: "$two:hs", topic: "1")
        let two = try json("$two:hs", auth: "$one:hs", topic: "2")
        var events = Dictionary(uniqueKeysWithValues: room.events.map { ($0.eventID, $0) })
        for event in [one, two] { events[event.eventID] = event }
        let key = StateKey("m.room.topic")
        let states = [one, two].map { event in base.merging([key: event.eventID]) { $1 } }
        let result = try StateResolution.resolve(states, version: .v2, source: EventLookup(events))
        #expect(result.count >= base.count)
    }

    @Test("an event of a state that is not known is an error, a hole in an auth chain is not")
    func missing() throws {
        var chain = try Chain(.v11, length: 5)
        let powerLevels = try #require(chain.states[0][.powerLevels])
        let previous = try #require(
            chain.events[powerLevels]?.authEvents.first { chain.events[$0]?.type == "m.room.power_levels" })
        chain.events[previous] = nil
        _ = try StateResolution.resolve(chain.states, version: .v11, source: EventLookup(chain.events))
        let topic = try #require(chain.states[1][StateKey("m.room.topic")])
        chain.events[topic] = nil
        let error = #expect(throws: StateResolutionError.self) {
            try StateResolution.resolve(chain.states, version: .v11, source: EventLookup(chain.events))
        }
        #expect(error == .missingEvent(topic))
    }

    @Test("A03 auth events of another room are not followed")
    func otherRoom() throws {
        let chain = try Chain(.v11, length: 2)
        var elsewhere = RoomBuilder(.v11)
        elsewhere.roomID = RoomID(unchecked: "!else:hs")
        let foreign = try elsewhere.add(
            "m.room.create", sender: "@creator:hs", stateKey: "",
            content: elsewhere.createContent(creator: "@creator:hs"))
        var events = chain.events
        events[foreign.eventID] = foreign
        let claimed = chain.states[0].merging([.create: foreign.eventID]) { $1 }
        #expect(throws: StateResolutionError.self) {
            try StateResolution.resolve([chain.states[1], claimed], version: .v11, source: EventLookup(events))
        }
    }
}

extension JSON {
    mutating func appendElement(_ element: JSON) {
        guard case .array(var elements) = self else { return }
        elements.append(element)
        self = .array(elements)
    }
}
