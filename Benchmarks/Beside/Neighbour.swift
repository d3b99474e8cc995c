import Homeserver
import MatrixCore
import NIOCore
import NIOPosix
import RoostTestSupport
import Synchronization

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Twenty quiet users and a noisy one: what a flood of messages, a peer that hangs, and a hostile filter do to the times of everybody else.
///
/// The quiet ones are measured on a thread that goes before all others, the noise comes from one that goes behind them.
@Sendable func neighbourScenario(_ subject: Subject) async throws {
    let quietLoop = try await thread(niceness: -10)
    let noiseLoop = try await thread(niceness: 10)
    let users = try await subject.users("quiet", 20, on: quietLoop)
    let quiet = Quiet(loop: quietLoop)
    for circle in 0..<4 {
        let members = Array(users[circle * 5..<circle * 5 + 5])
        try await subject.room(members)
        for member in members {
            try await quiet.add(member, listener: try await member.another())
        }
    }
    let noises = [
        try await Flood(subject, noiseLoop) as any Noise, try await HangingPeer(subject, noiseLoop),
        try await HostileFilter(subject, noiseLoop),
    ]
    let phases: [(name: String, noises: [any Noise])] =
        [("alone", [])] + noises.map { ($0.name, [$0]) } + [("all of these", noises)]
    var alone = (send: 0.0, sync: 0.0)
    // Each phase three times, so that what else runs on the machine meets all of them.
    var rounds = phases.map { _ in [Round]() }
    for _ in 0..<3 {
        for (place, phase) in phases.enumerated() {
            do {
                rounds[place].append(try await measure(quiet, phase.noises, subject.server))
            } catch {
                throw BenchFailure(what: "\(phase.name): \(error)")
            }
        }
    }
    for (phase, rounds) in zip(phases, rounds) {
        func median(_ value: (Round) -> Double) -> Double { percentile(rounds.map(value), 0.5) }
        let (send, sync) = (median(\.send), median(\.sync))
        subject.note("\(phase.name): send, 99th percentile", send, "ms")
        subject.note("\(phase.name): until others' sync, 99th percentile", sync, "ms")
        if phase.noises.isEmpty {
            alone = (send, sync)
        } else {
            subject.note("\(phase.name): send, times that alone", send / alone.send, "")
            subject.note("\(phase.name): sync, times that alone", sync / alone.sync, "")
        }
        for (place, noise) in phase.noises.enumerated() {
            subject.note("\(phase.name): \(noise.name), \(noise.unit)", median { $0.done[place] }, "/s")
        }
        subject.note("\(phase.name): the server's CPU", median(\.cpu), "cores")
        subject.note("\(phase.name): the measuring program's CPU", median(\.ownCPU), "cores")
    }
    for noise in noises { await noise.close() }
    await quiet.close()
}

/// What was seen in ten seconds.
private struct Round {
    /// The 99th percentile of how long quiet users' sends took, and their messages until they were in others' syncs, in ms.
    let send: Double
    let sync: Double
    let cpu: Double
    let ownCPU: Double
    /// What each noise did in a second.
    let done: [Double]
}

private func measure(_ quiet: Quiet, _ noises: [any Noise], _ server: ServerProcess) async throws -> Round {
    let (cpu, own, start) = (server.cpuSeconds(), Bench.cpuSeconds(), Bench.wallSeconds())
    for noise in noises { try await noise.begin() }
    try await Task.sleep(for: .seconds(1))
    let times = try await quiet.measure(seconds: 10)
    for noise in noises { await noise.end() }
    let seconds = Bench.wallSeconds() - start
    let round = Round(
        send: times.send, sync: times.sync, cpu: (server.cpuSeconds() - cpu) / seconds,
        ownCPU: (Bench.cpuSeconds() - own) / seconds, done: noises.map { Double($0.done) / seconds })
    try await Task.sleep(for: .seconds(1))
    return round
}

/// An event loop with a thread of its own that the kernel prefers, below 0, or not.
private func thread(niceness: CInt) async throws -> any EventLoop {
    let loop = MultiThreadedEventLoopGroup(numberOfThreads: 1).next()
    // On Linux the priority is that of a thread; below 0 only root may go, and others stay at 0.
    try await loop.submit { _ = setpriority(.init(PRIO_PROCESS.rawValue), 0, niceness) }.get()
    return loop
}

/// The quiet users: each sends a message every second and waits in a sync. On one event loop.
private final class Quiet: @unchecked Sendable {
    private let loop: any EventLoop
    private var users: [(sender: BenchClient, listener: BenchClient)] = []
    private var sends: [Double] = []
    private var syncs: [Double] = []
    /// When a message that has been sent should have been.
    private var due: [String: Double] = [:]
    private var number = 0
    private var missing = 0
    private var failed = 0
    private static let period = 1.0

    init(loop: any EventLoop) { self.loop = loop }

    func add(_ sender: BenchClient, listener: BenchClient) async throws {
        let room = sender.room
        try await listener.beginWaiting { root, now in
            for event in root["rooms"]?["join"]?[room]?["timeline"]?["events"]?.elements.map({ $0 }) ?? [] {
                guard let text = event["content"]?["body"]?.string, let due = self.due[text] else { continue }
                self.syncs.append((now - due) * 1e3)
                self.missing -= 1
            }
        }
        users.append((sender, listener))
    }

    /// Milliseconds that 99 of 100 sends and arrivals didn't take longer than, from when the message was due.
    func measure(seconds: Double) async throws -> (send: Double, sync: Double) {
        let start = Bench.wallSeconds() + 0.1
        try await loop.submit {
            self.sends = []
            self.syncs = []
            self.due = [:]
            self.missing = 0
            for (place, user) in self.users.enumerated() {
                let first = start + Self.period * Double(place) / Double(self.users.count)
                self.send(user.sender, at: first, until: start + seconds)
            }
        }.get()
        try await Task.sleep(for: .seconds(seconds + 0.1))
        // Those that are late are counted, too.
        for _ in 0..<600 {
            if try await loop.submit({ self.missing == 0 && self.sends.count == self.due.count }).get() { break }
            try await Task.sleep(for: .milliseconds(100))
        }
        let (sends, syncs, missing, failed) = try await loop.submit {
            (self.sends, self.syncs, self.missing, self.failed)
        }.get()
        guard failed == 0 else { throw BenchFailure(what: "\(failed) messages of quiet users were refused") }
        if missing > 0 { throw BenchFailure(what: "\(missing) messages were not in a sync a minute later") }
        return (percentile(sends, 0.99), percentile(syncs, 0.99))
    }

    private func send(_ client: BenchClient, at due: Double, until end: Double) {
        guard due < end else { return }
        let delay = max(0, due - Bench.wallSeconds())
        loop.scheduleTask(in: .nanoseconds(Int64(delay * 1e9))) {
            self.number += 1
            let text = "quiet \(self.number)"
            self.due[text] = due
            // Its sender's sync tells it, too; only the others' count, but all of them are waited for.
            self.missing += 5
            client.begin(
                .PUT, "/_matrix/client/v3/rooms/\(client.room)/send/m.room.message/q\(self.number)",
                #"{"msgtype":"m.text","body":"\#(text)"}"#
            ).whenComplete { result in
                if case .success(let answer) = result, answer.status == 200 {
                    self.sends.append((answer.received - due) * 1e3)
                } else {
                    self.failed += 1
                }
                self.send(client, at: due + Self.period, until: end)
            }
        }
    }

    func close() async {
        for user in users {
            await user.sender.close()
            await user.listener.close()
        }
    }
}

/// What disturbs the others, from when it begins until it ends.
private protocol Noise: Sendable {
    var name: String { get }
    /// What is counted.
    var unit: String { get }
    /// How often it was done in this phase.
    var done: Int { get }
    func begin() async throws
    func end() async
    func close() async
}

/// Asks again as soon as it was answered, or after a pause.
private final class ClosedLoop: Sendable {
    private let count = Mutex(0)
    private let isRunning = Mutex(false)
    private let clients: [BenchClient]
    private let request: @Sendable (BenchClient, Int) -> EventLoopFuture<BenchClient.Answer>
    private let pause: TimeAmount

    init(
        _ clients: [BenchClient], pause: TimeAmount = .zero,
        request: @escaping @Sendable (BenchClient, Int) -> EventLoopFuture<BenchClient.Answer>
    ) {
        (self.clients, self.request) = (clients, request)
        self.pause = pause
    }

    var done: Int { count.withLock { $0 } }

    func begin() async throws {
        for client in clients { try await client.revive() }
        count.withLock { $0 = 0 }
        isRunning.withLock { $0 = true }
        for client in clients { client.loop.execute { self.next(client) } }
    }

    private static let serial = Mutex(0)

    private func next(_ client: BenchClient) {
        guard isRunning.withLock({ $0 }) else { return }
        let number = Self.serial.withLock { serial in
            serial += 1
            return serial
        }
        request(client, number).whenComplete { result in
            guard case .success(let answer) = result else { return }
            if answer.status == 200 { self.count.withLock { $0 += 1 } }
            if self.pause == .zero {
                self.next(client)
            } else {
                client.loop.scheduleTask(in: self.pause) { self.next(client) }
            }
        }
    }

    func end() { isRunning.withLock { $0 = false } }

    func close() async { for client in clients { await client.close() } }
}

/// Eight users who send to a room as fast as they are answered.
private final class Flood: Noise {
    let name = "flood"
    let unit = "messages"
    private let loop: ClosedLoop

    init(_ subject: Subject, _ eventLoop: any EventLoop) async throws {
        let users = try await subject.users("flood", 8, on: eventLoop)
        try await subject.room(users)
        loop = ClosedLoop(users) { client, number in
            client.begin(
                .PUT, "/_matrix/client/v3/rooms/\(client.room)/send/m.room.message/f\(number)",
                #"{"msgtype":"m.text","body":"flood \#(number)"}"#)
        }
    }

    var done: Int { loop.done }
    func begin() async throws { try await loop.begin() }
    func end() async { loop.end() }
    func close() async { await loop.close() }
}

/// A room with ten servers that take requests and never answer, in which somebody sends ten messages a second.
private final class HangingPeer: Noise {
    let name = "hanging peers"
    let unit = "messages"
    private let loop: ClosedLoop
    private let remotes: RemoteServers
    private let servers: [ServerName: HostileServer]

    init(_ subject: Subject, _ eventLoop: any EventLoop) async throws {
        let remotes = try await RemoteServers()
        let user = try await subject.users("correspondent", 1, on: eventLoop)[0]
        let room = RoomID(unchecked: try await subject.room([user]))
        let name = ServerName(unchecked: String(user.userID.drop { $0 != ":" }.dropFirst()))
        let transport = PlainTransport(client: try await BenchClient(port: subject.port))
        let servers = (0..<10).map { number in
            HostileServer(
                remotes.name(number), seed: [UInt8](repeating: UInt8(number + 1), count: 32), transport: transport,
                now: millisecondsNow)
        }
        self.remotes = remotes
        self.servers = Dictionary(uniqueKeysWithValues: servers.map { ($0.name, $0) })
        loop = ClosedLoop([user], pause: .milliseconds(100)) { client, number in
            client.begin(
                .PUT, "/_matrix/client/v3/rooms/\(client.room)/send/m.room.message/h\(number)",
                #"{"msgtype":"m.text","body":"to nobody \#(number)"}"#)
        }
        behave()
        for server in servers { _ = try await server.join(room, as: server.user("member"), at: name) }
    }

    private func behave() {
        let servers = servers
        remotes.answer { request in
            if request.target.contains("/v1/send/") {
                return ServerResponse(status: 200, body: Array(#"{"pdus":{}}"#.utf8))
            }
            return servers[request.destination]?.answer(request)
                ?? ServerResponse(status: 404, body: Array(notHere.utf8))
        }
    }

    var done: Int { loop.done }

    func begin() async throws {
        remotes.answer { _ in nil }
        try await loop.begin()
    }

    func end() async {
        loop.end()
        behave()
    }

    func close() async {
        await loop.close()
        await remotes.close()
    }
}

/// A user in twenty rooms who always syncs from the start, the whole state and a thousand events of each room wanted, by a filter of
/// 64 KiB: thousands of patterns, of which only the last fits. On four connections.
private final class HostileFilter: Noise {
    let name = "hostile filter"
    let unit = "syncs"
    private let loop: ClosedLoop

    init(_ subject: Subject, _ eventLoop: any EventLoop) async throws {
        let user = try await subject.users("greedy", 1, on: eventLoop)[0]
        for _ in 0..<20 {
            let room = try await subject.room([user])
            for number in 0..<40 {
                try await user.ask(
                    .PUT, "/_matrix/client/v3/rooms/\(room)/send/m.room.message/\(number)",
                    #"{"msgtype":"m.text","body":"message \#(number)"}"#)
            }
        }
        var patterns: [String] = []
        var bytes = 0
        while bytes < 31_000 {
            patterns.append("\"m*o*m*\(patterns.count)\"")
            bytes += patterns.last!.utf8.count + 1
        }
        let types = "[\(patterns.joined(separator: ",")),\"*\"]"
        let filter = #"{"room":{"timeline":{"limit":1000,"types":\#(types)},"state":{"types":\#(types)}}}"#
        let id = try await user.ask(
            .POST, "/_matrix/client/v3/user/\(HostileServer.quote(user.userID))/filter", filter)["filter_id"]?.string
        let clients = try await (0..<4).asyncMap { _ in try await user.another() }
        loop = ClosedLoop(clients) { client, number in
            // Answers that are kept for those who ask alike are made anew.
            client.begin(.GET, "/_matrix/client/v3/sync?full_state=true&filter=\(id ?? "")&timeout=\(number)", "")
        }
    }

    var done: Int { loop.done }
    func begin() async throws { try await loop.begin() }
    func end() async { loop.end() }
    func close() async { await loop.close() }
}
