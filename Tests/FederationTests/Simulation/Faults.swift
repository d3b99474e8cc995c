import Homeserver
import Logging
import MatrixCore
import RoostTestSupport

/// What goes wrong.
extension World {
    /// Has one thing go wrong, or one that went wrong be mended.
    func harm() async throws {
        let server = pick(servers)
        if emphasis == .restores, chance(50) {
            if server.backup == nil { try await backUp(server) } else { try await restore(server) }
            return
        }
        if emphasis == .crashes, chance(50) { return try await crashWhileTelling(server) }
        switch number(0..<22) {
        case 0, 1:
            note("the network is cut at \(server.name)")
            network.cut(server.name)
        case 2, 3:
            let other = pick(servers)
            note("nothing gets from \(server.name) to \(other.name)")
            network.cut(from: server.name, to: other.name)
        case 4, 5, 6:
            note("the network is mended")
            network.mendAll()
        case 7:
            note("answers of \(server.name) get lost")
            network.loseAnswers(of: server.name)
        case 8:
            note("\(server.name) hangs")
            faults.change { $0.hanging.insert(server.name) }
        case 9:
            note("\(server.name) is slow")
            faults.change { $0.slow.insert(server.name) }
        case 10:
            note("nobody hangs or is slow")
            faults.change { weather in
                weather.hanging = []
                weather.slow = []
            }
        case 11, 12:
            note("the weather changes")
            let drawn = (0..<4).map { _ in chance(40) ? number(0..<30) : 0 }
            let delay = chance(50) ? Int64(number(0..<3_000)) : 20
            faults.change { weather in
                weather.delay = delay
                weather.delayed = drawn[0]
                weather.lost = drawn[1]
                weather.unanswered = drawn[2]
                weather.repeated = drawn[3]
            }
        case 13, 14, 15:
            let count = number(1..<25)
            let isKept = chance(50)
            note("\(server.name) is to crash at its write \(count), \(isKept ? "after" : "before") it")
            server.engine?.crash(atWrite: count, isKept: isKept)
        case 16, 17:
            note("\(server.name) is killed")
            try await end(server, crashes: true)
            try await comeBack(server)
        case 18:
            note("\(server.name) is restarted")
            try await end(server, crashes: false)
            try await comeBack(server)
        case 19, 20: try await backUp(server)
        default: try await restore(server)
        }
    }

    private func comeBack(_ server: SimulatedServer) async throws {
        if chance(40) { try await advance(by: Int64(number(1..<15_000))) }
        if server.server == nil { try await start(server) }
    }

    private func backUp(_ server: SimulatedServer) async throws {
        guard let source = server.server, !server.hasCrashed else { return }
        let path = "\(server.directory.path)/backup-\(now)"
        note("\(server.name) is backed up")
        _ = try thread.outside { try await source.homeserver.maintenance.backUp(to: path) }
        server.backup = (path, now)
    }

    private func restore(_ server: SimulatedServer) async throws {
        guard let (path, at) = server.backup else { return }
        // What others know of devices here is going to be newer than what is known here.
        if server.server != nil, chance(50) {
            for person in server.people { changeDevices(server, person) }
            try await advance(by: 2_000)
            for other in servers where other.server != nil { askForDevices(other, other.people[0]) }
            try await advance(by: 2_000)
        }
        if emphasis == .restores { try await happen(without: server) }
        note("\(server.name) is restored to what it was at \(at)")
        let clock = ManualSurroundings(seed: seed &+ UInt64(server.life), now: now + server.skew)
        try await end(server, crashes: true)
        let directory = server.directory.path
        for file in ["roost.db", "roost.db-wal", "roost.db-shm"] {
            TemporaryDirectory.removeTree("\(directory)/\(file)")
        }
        let name = server.name
        var silent = Logger(label: "restore")
        silent.logLevel = .critical
        let logger = silent
        _ = try thread.outside {
            try await Backup.restore(
                from: path, serverName: name, to: .sqlite(path: "\(directory)/roost.db"),
                mediaPath: "\(directory)/media", scratch: directory, surroundings: clock.surroundings, logger: logger)
        }
        server.forgotten.append(at...now)
        for person in server.people { person.token = nil }
        try await start(server)
        // What it has forgotten of others they have to tell it, also if they have left meanwhile.
        if chance(40) { depart(pick(servers), from: pick(rooms)) }
    }

    /// Has a server crash some seconds after the devices of somebody there have changed, while another server that knows them lets it wait.
    private func crashWhileTelling(_ server: SimulatedServer) async throws {
        let others = servers.filter { $0.index != server.index && $0.server != nil && !$0.hasCrashed }
        guard server.server != nil, !server.hasCrashed, !others.isEmpty else { return }
        let other = pick(others)
        askForDevices(other, other.people[0])
        try await advance(by: 1_000)
        guard server.server != nil, !server.hasCrashed else { return }
        note("\(other.name) hangs for a while")
        faults.change { $0.hanging.insert(other.name) }
        changeDevices(server, pick(server.people))
        try await advance(by: Int64(number(4_000..<15_000)))
        note("\(server.name) is killed")
        try await end(server, crashes: true)
        faults.change { $0.hanging.remove(other.name) }
        try await comeBack(server)
    }

    /// Has much happen elsewhere that a server is told and is going to forget, and bad weather afterwards.
    private func happen(without server: SimulatedServer) async throws {
        let others = servers.filter { $0.index != server.index && $0.server != nil && !$0.hasCrashed }
        for other in others {
            for person in other.people {
                if chance(50) { changeDevices(other, person) }
                for _ in 0..<number(0..<4) { mark(other, person, in: pick(rooms)) }
            }
        }
        try await advance(by: Int64(number(500..<5_000)))
        let drawn = [number(0..<20), number(0..<20), number(0..<70)]
        faults.change { weather in
            weather.lost = drawn[0]
            weather.unanswered = drawn[1]
            weather.lostQuestions = drawn[2]
        }
    }

    /// Nothing is wrong any more.
    func heal() async throws {
        note("everything is healed")
        network.mendAll()
        faults.change { $0 = NetworkFaults.Weather() }
        for server in servers { server.engine?.crash(atWrite: nil) }
        try await finishAll()
        // One may have crashed just before.
        try await advance(by: 30_000)
        for server in servers where server.server == nil { try await start(server) }
        try await advance(by: 90_000)
    }
}
