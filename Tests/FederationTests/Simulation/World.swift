import Homeserver
import Logging
import MatrixCore
import RoostTestSupport
import Synchronization

@testable import Database
@testable import Homeserver

/// Several homeservers, the people on them, and the network between them, as a seed says. Everything in it happens on one simulated
/// thread, and time passes only when ``advance(by:)`` says so.
final class World: @unchecked Sendable {
    /// What happens more often than otherwise.
    enum Emphasis: String, CaseIterable {
        case nothing
        /// Servers are restored from backups while much happens that they don't know of then.
        case restores
        /// People of a server leave a room all together and come back at once, by way of servers that know different things.
        case returns
        /// Servers crash while they are telling others something that is told once.
        case crashes

        /// How many seeds of it always run, from the first on.
        var seeds: UInt64 {
            switch self {
            case .nothing: 300
            case .restores: 50
            case .returns, .crashes: 15
            }
        }
    }

    let seed: UInt64
    let emphasis: Emphasis
    let thread: SimulatedThread
    let network = TestNetwork()
    let clock: ManualSurroundings
    let faults: NetworkFaults
    let version: String
    /// Whether rooms are joined without their members, however few they are.
    let isPartial: Bool
    var random: SeededGenerator
    /// How many states were set that nothing replaces.
    var marks = 0
    var servers: [SimulatedServer] = []
    var rooms: [RoomID] = []
    var byzantine: ByzantineServer?
    /// Whether servers that have crashed come back by themselves: no longer when they are being ended.
    var isOver = false

    /// What was acknowledged, and by whom and when.
    struct Saying {
        let event: EventID
        let room: RoomID
        let server: Int
        let at: Int64
        /// The servers that were in the room then, as the one knew where it was said.
        var hearers: Set<ServerName> = []
    }
    var said: [Saying] = []
    /// Of these, those from when all was healed.
    var healed: [Saying] = []
    /// Servers some of whose people left a room or were put out, by the room.
    var departed: [RoomID: Set<ServerName>] = [:]
    /// Somebody in a room.
    struct Presence: Hashable {
        let room: RoomID
        let user: UserID
    }
    /// Who has left, acknowledged, and not tried to come back since, and when.
    var left: [Presence: Int64] = [:]
    /// Servers that have been out of a room with everybody on them, as they themselves knew, and when they left it last.
    var deserted: [RoomID: [ServerName: Int64]] = [:]
    /// Servers from which somebody came into a room that their server wasn't in, or tried to.
    var entered: [RoomID: Set<ServerName>] = [:]
    /// Joins that were begun and that nobody knows to have succeeded.
    var unsureJoins: [Presence: Int] = [:]
    /// Messages to devices: to whom, and whether they were acknowledged.
    struct Parcel {
        let from: Int
        let to: UserID
        let at: Int64
        var isAcknowledged = false
    }
    var parcels: [String: Parcel] = [:]

    /// Events as they are stored, whose signatures were looked at: the same is stored on many servers.
    var verified: Set<[UInt8]> = []
    private(set) var log: [String] = []
    private(set) var problems: [String] = []
    /// What people are doing at the moment, and on which server.
    private var running: [Int: (what: String, server: Int)] = [:]
    private var begun = 0
    private let start: Int64 = 1_700_000_000_000

    init(seed: UInt64, emphasis: Emphasis = .nothing, thread: SimulatedThread) {
        self.seed = seed
        self.emphasis = emphasis
        self.thread = thread
        random = SeededGenerator(seed: seed)
        clock = ManualSurroundings(seed: seed, now: start)
        faults = NetworkFaults(clock: clock, seed: seed &+ 1 << 40)
        version = ["6", "9", "10", "11", "12", "12"][Int(seed % 6)]
        isPartial = seed % 5 == 0
        network.use(faults)
        network.watch { [unowned self] exchange, outcome in
            self.note("  \(exchange.from) \(exchange.method) \(exchange.target) of \(exchange.to): \(outcome)")
        }
    }

    var now: Int64 { clock.now }

    func number(_ range: Range<Int>) -> Int { Int.random(in: range, using: &random) }
    /// Whether something happens that happens so many times of a hundred.
    func chance(_ percent: Int) -> Bool { number(0..<100) < percent }
    func pick<T>(_ list: [T]) -> T { list[number(0..<list.count)] }

    func note(_ line: String) { log.append("\((now - start)) \(line)") }
    func problem(_ line: String) {
        note("PROBLEM \(line)")
        problems.append(line)
    }

    /// The whole of it: much happens, all is healed, and the checks are made.
    func run() async throws {
        try await begin()
        for _ in 0..<60 {
            if chance(22) { try await harm() }
            act()
            if let byzantine {
                if chance(25) { byzantine.act() }
                if chance(2) { putOut(byzantine.user) }
            }
            try await advance(by: Int64(number(0..<(chance(10) ? 20_000 : 1_200))))
        }
        try await heal()
        try await check()
    }

    /// Ends all servers.
    func close() async {
        isOver = true
        for server in servers {
            do { try await end(server, crashes: false) } catch { problem("\(server.name) doesn't end: \(error)") }
        }
    }

    // MARK: - Servers

    /// Servers with two people on each and one room.
    ///
    /// - Parameters:
    ///   - count: how many; two to seven, mostly few, unless it is said.
    ///   - isTroubled: whether clocks may be wrong, and one server may lie.
    func begin(count: Int? = nil, isTroubled: Bool = true) async throws {
        let drawn = [2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 5, 6, 7][number(0..<14)]
        let count = count ?? drawn
        let isSkewed = chance(25) && isTroubled
        for index in 0..<count {
            let server = SimulatedServer(index: index, skew: isSkewed ? Int64(number(-3_600_000..<3_600_000)) : 0)
            servers.append(server)
            try await start(server)
            for name in ["a", "b"] { server.people.append(try await person("\(name)\(index + 1)", on: server)) }
        }
        let home = servers[0].server!
        rooms = [try await home.room(of: servers[0].people[0].requester, version: version)]
        if emphasis != .nothing { try await letEverybodyMark(rooms[0], as: servers[0].people[0], on: servers[0]) }
        for server in servers.dropFirst() {
            let joined = await finish("\(server.people[0].userID) joins first") {
                try await server.server!.homeserver.memberships.join(
                    self.rooms[0], reason: nil, via: [self.servers[0].name], by: server.people[0].requester)
            }
            if joined == nil { problem("\(server.name) can't join the room although nothing is wrong") }
        }
        if chance(30), isTroubled { byzantine = try await ByzantineServer(in: self) }
    }

    func start(_ server: SimulatedServer) async throws {
        server.life += 1
        server.hasCrashed = false
        var silent = Logger(label: "simulation")
        silent.logLevel = .critical
        var options = SQLiteEngine.Options()
        options.isDurable = false
        options.writesInPlace = true
        let name = server.name
        let network = network
        let isPartial = isPartial
        let inner = try await SQLiteEngine(path: "\(server.directory.path)/roost.db", options: options, logger: silent)
        let engine = CrashingEngine(inner) { [unowned server] in
            network.kill(name)
            server.hasCrashed = true
        }
        let started = try await TestServer(
            directory: server.directory,
            clock: ManualSurroundings(
                seed: seed &* 1_000 &+ UInt64(server.index * 100 + server.life), now: now + server.skew),
            engine: engine, logger: silent, transport: network.transport(of: name)
        ) {
            $0.serverName = name
            if isPartial { $0.federation.partialFrom = 1 }
        }
        server.engine = engine
        server.server = started
        network.connect(started.homeserver)
        try await started.homeserver.startJobs()
    }

    /// Ends a server's life, in order or as a crash does.
    func end(_ server: SimulatedServer, crashes: Bool) async throws {
        guard let ending = server.server else { return }
        if crashes { server.engine?.crash() }
        network.kill(server.name)
        await thread.settle()
        server.server = nil
        server.engine = nil
        // What waited for a time that doesn't come there any more is never heard of again.
        running = running.filter { $0.value.server != server.index }
        server.hasCrashed = false
        try thread.outside { await ending.close() }
    }

    private func person(_ name: String, on server: SimulatedServer) async throws -> Person {
        let home = server.server!.homeserver
        let (nid, userID) = try await home.accounts.createAccount(localpart: name, password: nil, admin: false)
        _ = try await home.accounts.begin(nid, userID, .init(deviceID: "MAIN", displayName: "main"))
        return Person(home: server.index, requester: Requester(nid: nid, userID: userID, deviceID: "MAIN"))
    }

    // MARK: - Time

    /// Lets time pass, and everything happen that comes due.
    func advance(by milliseconds: Int64) async throws {
        var left = milliseconds
        while true {
            await thread.settle()
            try await takeAwayCrashed()
            let clocks = [clock] + servers.compactMap { $0.server?.clock }
            let next = clocks.compactMap(\.untilNext).min() ?? left
            if left == 0, next > 0 { return }
            let step = min(next, left)
            for clock in clocks { clock.advance(by: step) }
            left -= step
        }
    }

    private func takeAwayCrashed() async throws {
        for server in servers where server.hasCrashed {
            note("\(server.name) crashes at a write")
            try await end(server, crashes: true)
            if isOver { continue }
            let life = server.life
            _ = clock.surroundings.after(Int64(number(1..<20_000))) { [unowned self] in
                Task {
                    guard server.server == nil, server.life == life, !self.isOver else { return }
                    self.note("\(server.name) is back")
                    do { try await self.start(server) } catch { self.problem("\(server.name) can't start: \(error)") }
                }
            }
        }
    }

    // MARK: - Deeds

    /// Begins something that a person does on a server; it goes on while other things happen.
    func begin(_ what: String, on server: SimulatedServer, _ body: @escaping @Sendable () async throws -> Void) {
        begun += 1
        let number = begun
        note("\(number): \(server.name) \(what)")
        running[number] = (what, server.index)
        let life = server.life
        Task {
            do {
                try await body()
            } catch let error as MatrixError {
                self.note("\(number): refused, \(error.message)")
            } catch {
                // What a server does after it has crashed is not its fault.
                if server.life == life, server.server != nil, !server.hasCrashed {
                    self.problem("“\(what)” on \(server.name) fails: \(error)")
                }
            }
            self.running[number] = nil
        }
    }

    /// Lets time pass until all that was begun has ended.
    func finishAll() async throws {
        for _ in 0..<600 {
            if running.isEmpty { return }
            try await advance(by: 1_000)
        }
        problem("what was begun doesn't end: \(running.sorted { $0.key < $1.key }.map(\.value.what))")
    }

    /// Does something to its end, while time passes; nil if it failed or takes longer than anything may.
    func finish<T: Sendable>(_ what: String, _ body: @escaping @Sendable () async throws -> T) async -> T? {
        let outcome = Mutex<Result<T, any Error>?>(nil)
        Task {
            let result: Result<T, any Error>
            do { result = .success(try await body()) } catch { result = .failure(error) }
            outcome.withLock { $0 = result }
        }
        do {
            for _ in 0..<3_000 {
                await thread.settle()
                if let result = outcome.withLock({ $0 }) {
                    if case .failure(let error) = result { note("\(what): \(error)") }
                    return try? result.get()
                }
                try await advance(by: 100)
            }
            problem("“\(what)” doesn't end")
        } catch {
            problem("“\(what)”: \(error)")
        }
        return nil
    }
}
