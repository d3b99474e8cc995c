import MatrixCore

extension Bench {
    /// A fork in a room of 50,000 members: both sides change power levels, ban and let in; every event is loaded from bytes.
    static func resolutionSection() throws {
        for version in [RoomVersion.v1, .v11, .v12] {
            try resolution(version, members: 50_000, changes: 50)
        }
    }

    private static func resolution(_ version: RoomVersion, members: Int, changes: Int) throws {
        var room = try BenchRoom(version)
        var stored: [EventID: [UInt8]] = [:]
        for event in room.state.values { stored[event.eventID] = event.json }
        for number in 0..<members {
            let user = UserID(unchecked: "@member\(number):example.org")
            let event = try room.add(
                "m.room.member", user, user.string, ["membership": "join", "displayname": "Member \(number)"])
            stored[event.eventID] = event.json
        }
        var states: [StateMap] = []
        for side in 0..<2 {
            var fork = room
            for change in 0..<changes {
                let target = UserID(unchecked: "@member\(change * 2 + side):example.org")
                let event =
                    switch change % 5 {
                    case 0:
                        try fork.add("m.room.power_levels", room.creator, "", levels(fork, target))
                    case 1: try fork.add("m.room.member", room.creator, target.string, ["membership": "ban"])
                    case 2: try fork.add("m.room.topic", room.creator, "", ["topic": .string("\(side) \(change)")])
                    default:
                        try fork.add(
                            "m.room.member", UserID(unchecked: "@new\(side)-\(change):example.org"),
                            "@new\(side)-\(change):example.org", ["membership": "join"])
                    }
                stored[event.eventID] = event.json
            }
            states.append(fork.state.mapValues(\.eventID))
        }
        room = try BenchRoom(version)
        let bytes = stored
        let before = memory()
        let loaded = Loaded(bytes: bytes, version: version)
        let cpu = cpuSeconds()
        let wall = wallSeconds()
        let result = try StateResolution.resolve(
            states, version: version, source: EventLookup { loaded.event($0) })
        let seconds = (cpuSeconds() - cpu, wallSeconds() - wall)
        let after = memory()
        report(
            "version \(version): whole states, events loaded from bytes", seconds.0,
            "s CPU (\(Int(seconds.1 * 1e3)) ms)")
        report("version \(version): events loaded", Double(loaded.count), "of \(bytes.count)")
        report("version \(version): memory for it", after - before, "MB")

        let keys = Set(states[0].keys).union(states[1].keys).filter { states[0][$0] != states[1][$0] }
        let differing = states.map { state in state.filter { keys.contains($0.key) } }
        let base = states[0].filter { !keys.contains($0.key) }
        let few: [EventID] = [.create, .powerLevels, .joinRules].compactMap { base[$0] }
        let fresh = Loaded(bytes: bytes, version: version)
        let start = cpuSeconds()
        let parts = try StateResolution.resolve(
            differing: differing, shared: few, sharedEvent: { base[$0] }, version: version,
            source: EventLookup { fresh.event($0) })
        report("version \(version): differences only", (cpuSeconds() - start) * 1e3, "ms")
        report("version \(version): events loaded for the differences", Double(fresh.count), "of \(bytes.count)")
        precondition(base.merging(parts) { old, _ in old } == result)
    }

    private static func levels(_ room: BenchRoom, _ target: UserID) -> JSON {
        var levels = room.state[.powerLevels]?.content.json ?? [:]
        var users = levels["users"] ?? [:]
        users[target.string] = 50
        levels["users"] = users
        return levels
    }

    /// Events parsed on first use, as a server would load them.
    final class Loaded {
        private let bytes: [EventID: [UInt8]]
        private let version: RoomVersion
        private var events: [EventID: Event] = [:]

        init(bytes: [EventID: [UInt8]], version: RoomVersion) {
            self.bytes = bytes
            self.version = version
        }

        var count: Int { events.count }

        func event(_ id: EventID) -> Event? {
            if let event = events[id] { return event }
            guard let json = bytes[id] else { return nil }
            let event = try? Event(stored: json, eventID: id, version: version)
            events[id] = event
            return event
        }
    }
}
