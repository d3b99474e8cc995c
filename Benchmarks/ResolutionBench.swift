import MatrixCore

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

extension Bench {
    /// A fork in a room of 50,000 members: both sides change power levels, ban and let in; every event is loaded from bytes.
    static func resolutionSection() throws {
        for version in [RoomVersion.v1, .v11, .v12] {
            try resolution(version, members: 50_000, changes: 50)
        }
    }

    private static func resolution(_ version: RoomVersion, members: Int, changes: Int) throws {
        // Made by another process: what loading takes must not be found in the holes that making left.
        let path = "/tmp/roost-bench-\(getpid())"
        defer { unlink(path) }
        try run(["make-fork", version.identifier, String(members), String(changes), path])
        let (stored, states) = try readFork(path, version)
        let before = memory()
        let loaded = Loaded(stored, version: version)
        let cpu = cpuSeconds()
        let wall = wallSeconds()
        let result = try StateResolution.resolve(
            states, version: version, source: EventLookup { loaded.event($0) })
        let seconds = (cpuSeconds() - cpu, wallSeconds() - wall)
        let after = memory()
        report(
            "version \(version): whole states, events loaded from bytes", seconds.0,
            "s CPU (\(Int(seconds.1 * 1e3)) ms)")
        report("version \(version): events loaded", Double(loaded.count), "of \(stored.count)")
        report("version \(version): memory kept by it, loaded events included", after - before, "MB")

        let keys = Set(states[0].keys).union(states[1].keys).filter { states[0][$0] != states[1][$0] }
        let differing = states.map { state in state.filter { keys.contains($0.key) } }
        let base = states[0].filter { !keys.contains($0.key) }
        let few: [EventID] = [.create, .powerLevels, .joinRules].compactMap { base[$0] }
        let fresh = Loaded(stored, version: version)
        let start = cpuSeconds()
        let parts = try StateResolution.resolve(
            differing: differing, chains: .of(shared: few), sharedEvent: { base[$0] }, version: version,
            source: EventLookup { fresh.event($0) })
        report("version \(version): differences only", (cpuSeconds() - start) * 1e3, "ms")
        report("version \(version): events loaded for the differences", Double(fresh.count), "of \(stored.count)")
        precondition(base.merging(parts) { old, _ in old } == result)
    }

    /// Runs this program again.
    private static func run(_ arguments: [String]) throws {
        var strings: [UnsafeMutablePointer<CChar>?] = (["roost-bench"] + arguments).map { strdup($0) } + [nil]
        defer { for string in strings { free(string) } }
        var child = pid_t()
        var status: CInt = 0
        guard posix_spawn(&child, "/proc/self/exe", nil, nil, &strings, environ) == 0,
            waitpid(child, &status, 0) == child, status == 0
        else { throw BenchError.childFailed }
    }

    enum BenchError: Error { case childFailed, unreadable }

    /// Writes the events to a file, a line for each of ID and JSON: what both sides have, and after an empty line each what either
    /// side has alone.
    static func makeFork(_ version: RoomVersion, members: Int, changes: Int, path: String) throws {
        var room = try BenchRoom(version)
        guard let file = fopen(path, "w") else { throw BenchError.unreadable }
        defer { fclose(file) }
        func write(_ event: Event) {
            fputs("\(event.eventID)\n\(String(decoding: event.json, as: UTF8.self))\n", file)
        }
        for event in room.state.values { write(event) }
        for number in 0..<members {
            let user = UserID(unchecked: "@member\(number):example.org")
            write(
                try room.add(
                    "m.room.member", user, user.string,
                    ["membership": "join", "displayname": .string("Member \(number)")]))
        }
        for side in 0..<2 {
            fputs("\n", file)
            var fork = room
            for change in 0..<changes {
                let target = UserID(unchecked: "@member\(change * 2 + side):example.org")
                let new = UserID(unchecked: "@new\(side)-\(change):example.org")
                switch change % 5 {
                case 0: write(try fork.add("m.room.power_levels", room.creator, "", levels(fork, target)))
                case 1: write(try fork.add("m.room.member", room.creator, target.string, ["membership": "ban"]))
                case 2: write(try fork.add("m.room.topic", room.creator, "", ["topic": .string("\(side) \(change)")]))
                default: write(try fork.add("m.room.member", new, new.string, ["membership": "join"]))
                }
            }
        }
    }

    private static func readFork(_ path: String, _ version: RoomVersion) throws -> (Store, [StateMap]) {
        guard let file = fopen(path, "r") else { throw BenchError.unreadable }
        defer { fclose(file) }
        var stored = Store()
        var common: StateMap = [:]
        var states: [StateMap] = []
        var line = [CChar](repeating: 0, count: 70_000)
        func next() -> [UInt8]? {
            guard fgets(&line, CInt(line.count), file) != nil else { return nil }
            return line.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }
        }
        while let first = next() {
            if first.isEmpty {
                states.append(common)
                continue
            }
            guard let json = next() else { throw BenchError.unreadable }
            let id = EventID(unchecked: String(decoding: first, as: UTF8.self))
            let event = try Event(stored: json, eventID: id, version: version)
            stored.add(event)
            guard let key = event.stateMapKey else { continue }
            if states.isEmpty { common[key] = id } else { states[states.count - 1][key] = id }
        }
        return (stored, states)
    }

    /// Events as bytes in one piece, so that memory which loading them takes isn't found in holes that making them left.
    struct Store {
        private var bytes: [UInt8] = []
        private var places: [EventID: Range<Int>] = [:]

        var count: Int { places.count }

        mutating func add(_ event: Event) {
            places[event.eventID] = bytes.count..<bytes.count + event.json.count
            bytes += event.json
        }

        subscript(id: EventID) -> [UInt8]? { places[id].map { Array(bytes[$0]) } }
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
        private let stored: Store
        private let version: RoomVersion
        private var events: [EventID: Event] = [:]

        init(_ stored: Store, version: RoomVersion) {
            self.stored = stored
            self.version = version
        }

        var count: Int { events.count }

        func event(_ id: EventID) -> Event? {
            if let event = events[id] { return event }
            guard let json = stored[id] else { return nil }
            let event = try? Event(stored: json, eventID: id, version: version)
            events[id] = event
            return event
        }
    }
}
