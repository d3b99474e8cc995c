import MatrixCore
import NIOHTTP1
import RoostTestSupport

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Many who wait: 10,000 syncs on one node over plain HTTP, a thousand of them in one room, the others in rooms of ten. What
/// memory the server has then, and how long a message takes until it is at all of the thousand.
func waitingSection(users: Int = 10_000, inOneRoom: Int = 1_000, messages: Int = 30) async throws {
    let directory = TemporaryDirectory()
    let server = try await roost(in: directory)
    do {
        try await measure(server, users: users, inOneRoom: inOneRoom, messages: messages)
    } catch {
        await server.end()
        throw error
    }
    await server.end()
}

private func measure(_ server: ServerProcess, users: Int, inOneRoom: Int, messages: Int) async throws {
    let clients = try await withThrowingTaskGroup(of: [BenchClient].self) { tasks in
        for lane in 0..<16 {
            tasks.addTask {
                var clients: [BenchClient] = []
                for number in stride(from: lane, to: users, by: 16) {
                    clients.append(try await registered("waiting\(number)", at: server))
                }
                return clients
            }
        }
        return try await tasks.reduce(into: []) { $0 += $1 }
    }
    let circles =
        [clients.prefix(inOneRoom)]
        + stride(from: inOneRoom, to: users, by: 10).map {
            clients[$0..<min($0 + 10, users)]
        }
    for (number, circle) in circles.enumerated() {
        let owner = circle.first!
        let room = try await owner.ask(.POST, "/_matrix/client/v3/createRoom", #"{"preset":"public_chat"}"#)["room_id"]
        for member in circle { member.room = room?.string ?? "" }
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            for lane in 0..<8 {
                tasks.addTask {
                    for member in circle.dropFirst().enumerated() where member.offset % 8 == lane {
                        _ = try await member.element.ask(.POST, "/_matrix/client/v3/join/\(member.element.room)", "{}")
                    }
                }
            }
            try await tasks.waitForAll()
        }
        if number == 0 { Bench.report("members of the one room", Double(circle.count), "") }
    }
    let before = server.memory()
    clients[0].isSender = true
    for client in clients { try await client.beginWaiting() }
    try await Task.sleep(for: .seconds(3))
    Bench.report("syncs that wait", Double(clients.count), "")
    Bench.report("memory of the server before they wait", before, "MB")
    Bench.report("memory of the server while they wait", server.memory(), "MB")

    let listeners = clients.prefix(inOneRoom).dropFirst()
    var delays: [Double] = []
    var last: [Double] = []
    let cpu = server.cpuSeconds()
    for number in 0..<messages {
        let arrivals = listeners.map { $0.expectAnswer() }
        let start = Bench.wallSeconds()
        _ = try await clients[0].ask(
            .PUT, "/_matrix/client/v3/rooms/\(clients[0].room)/send/m.room.message/\(number)",
            #"{"msgtype":"m.text","body":"to all of you"}"#)
        var times: [Double] = []
        for arrival in arrivals { times.append(try await arrival.get() - start) }
        delays += times
        last.append(times.max()!)
        // Until all of them wait again.
        try await Task.sleep(for: .milliseconds(700))
    }
    delays.sort()
    last.sort()
    func percentile(_ values: [Double], _ share: Double) -> Double {
        values[min(values.count - 1, Int(Double(values.count) * share))] * 1000
    }
    Bench.report("a message at each of them, median", percentile(delays, 0.5), "ms")
    Bench.report("a message at each of them, 99th percentile", percentile(delays, 0.99), "ms")
    Bench.report("a message at the last of them, median", percentile(last, 0.5), "ms")
    Bench.report(
        "CPU of the server, for each delivery", (server.cpuSeconds() - cpu) / Double(delays.count) * 1e6, "µs")
    Bench.report("memory of the server after it", server.memory(), "MB")
}

private let appserviceToken = "benchmark-appservice"

/// A `roost serve` in a temporary directory, which an application service may register users with.
private func roost(in directory: TemporaryDirectory) async throws -> ServerProcess {
    let registration = """
        {"id":"bench","url":null,"as_token":"\(appserviceToken)","hs_token":"unused","sender_localpart":"bench",
        "rate_limited":false,"namespaces":{"users":[{"exclusive":false,"regex":"@waiting.*"}],"rooms":[],"aliases":[]}}
        """
    let path = "\(directory.path)/bench.yaml"
    guard let file = fopen(path, "w") else { throw BenchFailure(what: "can't write \(path)") }
    fputs(registration, file)
    fclose(file)
    setenv("ROOST_APPSERVICES", "[\(path)]", 1)
    let own = CommandLine.arguments[0].split(separator: "/", omittingEmptySubsequences: false).dropLast()
    let binary = getenv("ROOST_BINARY").map { String(cString: $0) } ?? own.joined(separator: "/") + "/roost"
    let port = try await ServerProcess.freePort()
    return try await ServerProcess.start(
        [binary, "serve", "--data", "\(directory.path)/data", "--listen", "127.0.0.1:\(port)", "--no-rate-limits"],
        port: port)
}

private func registered(_ name: String, at server: ServerProcess) async throws -> BenchClient {
    let client = try await BenchClient(port: server.port)
    client.token = appserviceToken
    let answer = try await client.ask(
        .POST, "/_matrix/client/v3/register", #"{"type":"m.login.application_service","username":"\#(name)"}"#)
    client.token = answer["access_token"]?.string ?? ""
    return client
}
