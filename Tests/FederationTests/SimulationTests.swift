import Glibc
import Homeserver
import MatrixCore
import RoostTestSupport
import Testing

@testable import Database

/// Several homeservers in one room do what a seed says, through cuts of the network, answers that get lost and restarts. When all is
/// healed, they have to agree.
@Suite("Rooms of several servers, by seeds", .serialized)
struct SimulationTests {
    /// What one run has.
    private final class World {
        let seed: UInt64
        var random: SeededGenerator
        let network = TestNetwork()
        var servers: [TestServer] = []
        var directories: [TemporaryDirectory] = []
        var people: [[Requester]] = []
        var room = RoomID(unchecked: "")
        var said: Set<EventID> = []
        var log: [String] = []

        init(seed: UInt64) {
            self.seed = seed
            random = SeededGenerator(seed: seed)
        }

        static func name(_ index: Int) -> ServerName { ServerName(unchecked: "hs\(index + 1).example") }

        func start(_ index: Int, _ directory: TemporaryDirectory) async throws -> TestServer {
            let name = Self.name(index)
            let server = try await TestServer(
                directory: directory,
                clock: ManualSurroundings(seed: seed &* 100 &+ UInt64(index) &+ UInt64(log.count)),
                transport: network.transport(of: name)
            ) { $0.serverName = name }
            network.connect(server.homeserver)
            try await server.homeserver.startJobs()
            return server
        }

        func begin(_ count: Int, version: String) async throws {
            for index in 0..<count {
                let directory = TemporaryDirectory()
                directories.append(directory)
                let server = try await start(index, directory)
                servers.append(server)
                people.append([try await server.user("a\(index)"), try await server.user("b\(index)")])
            }
            room = try await servers[0].room(of: people[0][0], version: version)
            for index in 1..<count {
                try await servers[index].homeserver.memberships.join(
                    room, reason: nil, via: [Self.name(0)], by: people[index][0])
            }
        }

        func tick(_ rounds: Int = 1) async throws {
            for _ in 0..<rounds {
                try await Task.sleep(for: .milliseconds(2))
                for server in servers { server.clock.advance(by: 300) }
            }
        }

        /// Does something; what the rules don't allow is not done.
        func act() async throws {
            let index = Int.random(in: 0..<servers.count, using: &random)
            let server = servers[index]
            let user = people[index].randomElement(using: &random)!
            let target = people.randomElement(using: &random)!.randomElement(using: &random)!
            let home = server.homeserver
            let action = Int.random(in: 0..<22, using: &random)
            log.append("\(Self.name(index)) \(user.userID) \(action) \(target.userID)")
            do {
                switch action {
                case 0..<8: said.insert(try await server.say("\(log.count)", in: room, by: user))
                case 8, 9:
                    _ = try await home.sending.setState(
                        StateKey("m.room.topic"), content: ["topic": .string("\(log.count)")], in: room, by: user)
                case 10:
                    try await home.memberships.join(
                        room, reason: nil, via: (0..<servers.count).map { Self.name($0) }, by: user)
                case 11: try await home.memberships.leave(room, reason: nil, by: user)
                case 12: try await home.memberships.remove(target.userID, from: room, .kick, reason: nil, by: user)
                case 13: try await home.memberships.remove(target.userID, from: room, .ban, reason: nil, by: user)
                case 14: try await home.memberships.remove(target.userID, from: room, .unban, reason: nil, by: user)
                case 15:
                    let state = try await home.reading.state(
                        of: room, key: .powerLevels, wholeEvent: false, for: user)
                    var levels = try JSONDocument(parsing: state).root.json
                    var users = levels["users"] ?? [:]
                    users[target.userID.string] = .integer([0, 50, 100].randomElement(using: &random)!)
                    levels["users"] = users
                    _ = try await home.sending.setState(.powerLevels, content: levels, in: room, by: user)
                case 16:
                    if let event = said.sorted().randomElement(using: &random) {
                        _ = try await home.sending.send(
                            "m.room.redaction", content: [:], to: room, transactionID: "r\(log.count)", redacts: event,
                            by: user)
                    }
                case 17: network.cut(Self.name(index))
                case 18: for other in servers.indices { network.mend(Self.name(other)) }
                case 19: network.loseAnswers(of: Self.name(index))
                case 20: network.loseAnswers(of: Self.name(index), false)
                default:
                    await server.close()
                    servers[index] = try await start(index, directories[index])
                }
            } catch is MatrixError {
                log[log.count - 1] += " refused"
            }
            try await tick()
        }

        func heal() async throws {
            for index in servers.indices {
                network.mend(Self.name(index))
                network.loseAnswers(of: Self.name(index), false)
            }
            try await tick(20)
        }

        /// The servers that are in the room, as they themselves see it.
        func residents() async throws -> [Int] {
            var found: [Int] = []
            for index in servers.indices {
                for user in people[index] {
                    let rooms = try await servers[index].homeserver.reading.joinedRooms(of: user)
                    if rooms.contains(room) {
                        found.append(index)
                        break
                    }
                }
            }
            return found
        }

        func member(_ index: Int) async throws -> Requester? {
            for user in people[index] {
                let rooms = try await servers[index].homeserver.reading.joinedRooms(of: user)
                if rooms.contains(room) { return user }
            }
            return nil
        }

        /// The current state as a server has it: for each key the event.
        func state(_ index: Int) async throws -> [StateKey: EventID] {
            let database = servers[index].homeserver.database
            guard let record = try await database.room(room) else { return [:] }
            return try await database.read { reader in
                let tree = StateTree(rows: database.stateRows, room: record.nid)
                let entries = try await tree.entries(in: record.state, reader)
                let keys = try await database.stateKeys(entries.map(\.key))
                let events = Dictionary(
                    try await database.events(entries.map(\.event), reader).map { ($0.nid, $0.eventID) }
                ) { $1 }
                var state: [StateKey: EventID] = [:]
                for entry in entries { if let key = keys[entry.key] { state[key] = events[entry.event] } }
                return state
            }
        }

        /// The servers of the room that lack an event. What none of them has was said where nobody is any more.
        func lacking(_ event: EventID, _ residents: [Int]) async throws -> [Int] {
            var found: [Int] = []
            for index in residents {
                let stored = try await servers[index].homeserver.database.event(event)
                if stored?.flags.contains(.rejected) ?? true { found.append(index) }
            }
            return found
        }

        func agree(_ residents: [Int]) async throws -> Bool {
            guard let first = residents.first else { return true }
            let expected = try await state(first)
            for index in residents.dropFirst() where try await state(index) != expected { return false }
            for index in residents {
                // What was said while a server wasn't in the room it fetches when somebody goes back.
                if let user = try await member(index) {
                    _ = try await servers[index].history(of: room, for: user, page: 50)
                }
            }
            for event in said where try await lacking(event, residents).count % residents.count != 0 { return false }
            return true
        }
    }

    /// `ROOST_SIMULATE_SEEDS=100-400` runs others than those that always run.
    private static let seeds: [UInt64] = {
        let ends = getenv("ROOST_SIMULATE_SEEDS").map {
            String(cString: $0).split(separator: "-").compactMap { UInt64($0) }
        }
        guard let ends, ends.count == 2, ends[0] <= ends[1] else { return Array(1...40) }
        return Array(ends[0]...ends[1])
    }()

    @Test("agree on the room when all is healed, and nothing acknowledged is missing anywhere", arguments: seeds)
    func converge(seed: UInt64) async throws {
        let world = World(seed: seed)
        let versions = ["6", "10", "11", "12"]
        try await world.begin(2 + Int(seed % 2), version: versions[Int(seed) % versions.count])
        for _ in 0..<40 { try await world.act() }
        try await world.heal()
        // What is owed is told, and what was missed is asked for, once somebody speaks.
        var agreed = false
        for _ in 0..<25 where !agreed {
            for index in world.servers.indices {
                if let user = try await world.member(index) {
                    do {
                        world.said.insert(try await world.servers[index].say("healed", in: world.room, by: user))
                    } catch is MatrixError {}
                }
            }
            for _ in 0..<30 where !agreed {
                try await world.tick(4)
                agreed = try await world.agree(try await world.residents())
            }
        }
        if !agreed {
            let residents = try await world.residents()
            var states: [String] = []
            for index in residents { states.append("\(World.name(index)): \(try await world.state(index))") }
            var lacking: [String] = []
            for event in world.said {
                let servers = try await world.lacking(event, residents)
                if servers.count % residents.count != 0 { lacking.append("\(event): \(servers)") }
            }
            Issue.record(
                "seed \(seed): \(residents) don't agree\n\(states.joined(separator: "\n"))\nlacking: \(lacking)\n\(world.log.joined(separator: "\n"))"
            )
        }
        for index in try await world.residents() {
            let report = try await ConsistencyCheck(world.servers[index].homeserver.database).run()
            #expect(report.problems == [], "seed \(seed)")
        }
        for server in world.servers { await server.close() }
    }
}
