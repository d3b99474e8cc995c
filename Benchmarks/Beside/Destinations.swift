import Homeserver
import MatrixCore
import RoostTestSupport
import Synchronization

/// Messages to a room with members on 200 other servers: until the sender is answered, until the first and the last of these servers have
/// it, and what is written for it with one of them and with all.
@Sendable func destinationsScenario(_ subject: Subject) async throws {
    let count = 200
    let remotes = try await RemoteServers()
    let sender = try await subject.users("sender", 1)[0]
    let roomID = try await subject.room([sender])
    let name = ServerName(unchecked: String(sender.userID.drop { $0 != ":" }.dropFirst()))
    let transport = PlainTransport(client: try await BenchClient(port: subject.port))
    let servers = (0..<count).map { number in
        HostileServer(
            remotes.name(number), seed: (0..<32).map { UInt8(truncatingIfNeeded: number &* 31 + $0 + number >> 8) },
            transport: transport, now: millisecondsNow)
    }
    let arrivals = Arrivals()
    let byName = Dictionary(uniqueKeysWithValues: servers.map { ($0.name, $0) })
    remotes.answer { request in
        if request.target.contains("/v1/send/") {
            arrivals.take(request)
            return ServerResponse(status: 200, body: Array(#"{"pdus":{}}"#.utf8))
        }
        return byName[request.destination]?.answer(request) ?? ServerResponse(status: 404, body: Array(notHere.utf8))
    }
    var sent = 0
    func measure(_ servers: Int, _ messages: Int) async throws {
        try await arrivals.quiet()
        var (answers, first, last): ([Double], [Double], [Double]) = ([], [], [])
        // The first ones open the connections.
        var (cpu, bytes, rows) = (0.0, 0.0, subject.rows())
        for number in 0..<(messages + 3) {
            if number == 3 {
                try await arrivals.quiet()
                (cpu, bytes) = (subject.server.cpuSeconds(), subject.server.bytesWritten())
                rows = subject.rows()
            }
            sent += 1
            let text = "to all of you \(sent)"
            arrivals.expect(text)
            let answer = try await sender.exchange(
                .PUT, "/_matrix/client/v3/rooms/\(roomID)/send/m.room.message/\(sent)",
                #"{"msgtype":"m.text","body":"\#(text)"}"#)
            guard answer.status == 200 else { throw BenchFailure(what: "a message was answered by \(answer.status)") }
            let times = try await arrivals.times(servers)
            guard number >= 3 else { continue }
            answers.append(answer.milliseconds)
            first.append((times.min()! - answer.sent) * 1e3)
            last.append((times.max()! - answer.sent) * 1e3)
        }
        let each = Double(messages)
        let server = servers == 1 ? "1 server" : "\(servers) servers"
        subject.note("\(server): the sender is answered, median", percentile(answers, 0.5), "ms")
        subject.note("\(server): the first has it, median", percentile(first, 0.5), "ms")
        if servers > 1 {
            subject.note("\(server): the last has it, median", percentile(last, 0.5), "ms")
            subject.note("\(server): the last has it, worst", last.max()!, "ms")
        }
        // What is told later, such as presence, belongs to it.
        try await arrivals.quiet()
        subject.note("\(server): CPU for each message", (subject.server.cpuSeconds() - cpu) / each * 1e3, "ms")
        subject.note("\(server): written for each", (subject.server.bytesWritten() - bytes) / each / 1024, "KiB")
        if let rows, let now = subject.rows() { subject.note("\(server): rows more for each", (now - rows) / each, "") }
    }
    let room = RoomID(unchecked: roomID)
    _ = try await servers[0].join(room, as: servers[0].user("member"), at: name)
    try await measure(1, 20)
    let start = Bench.wallSeconds()
    for server in servers.dropFirst() { _ = try await server.join(room, as: server.user("member"), at: name) }
    subject.note("199 servers have joined after", Bench.wallSeconds() - start, "s")
    try await measure(count, 20)
    await remotes.close()
}

let notHere = #"{"errcode":"M_NOT_FOUND","error":"Not here."}"#

/// When which server got the message that is waited for.
private final class Arrivals: Sendable {
    private struct State {
        var text = ""
        var times: [ServerName: Double] = [:]
        var newest = 0.0
    }

    private let state = Mutex(State())

    func expect(_ text: String) {
        state.withLock { state in
            state.text = text
            state.times = [:]
        }
    }

    func take(_ request: ServerRequest) {
        let now = Bench.wallSeconds()
        let texts = (try? JSONDocument(parsing: request.body ?? [], limits: .envelope).root)?["pdus"]?.elements
            .compactMap {
                $0["content"]?["body"]?.string
            }
        state.withLock { state in
            state.newest = now
            if texts?.contains(state.text) == true, state.times[request.destination] == nil {
                state.times[request.destination] = now
            }
        }
    }

    /// Waits until so many servers have it.
    func times(_ count: Int) async throws -> [Double] {
        let start = Bench.wallSeconds()
        while true {
            let times = state.withLock { Array($0.times.values) }
            if times.count >= count { return times }
            guard Bench.wallSeconds() - start < 120 else {
                throw BenchFailure(what: "after two minutes \(times.count) of \(count) servers have a message")
            }
            try await Task.sleep(for: .milliseconds(2))
        }
    }

    /// Waits until nothing has come for two seconds.
    func quiet() async throws {
        let start = Bench.wallSeconds()
        while Bench.wallSeconds() - max(start, state.withLock { $0.newest }) < 2 {
            try await Task.sleep(for: .milliseconds(100))
        }
    }
}
