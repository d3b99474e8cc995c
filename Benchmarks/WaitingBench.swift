import MatrixCore
import NIOCore
import NIOHTTP1
import NIOPosix
import RoostTestSupport

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Many who wait: 10,000 syncs on one node over plain HTTP, a thousand of them in one room, the others in rooms of ten. What
/// memory the server has then, and how long a message takes until it is at all of the thousand.
func waitingSection(users: Int = 10_000, inOneRoom: Int = 1_000, messages: Int = 30) async throws {
    let server = try await ServerProcess.start()
    do {
        try await measure(server, users: users, inOneRoom: inOneRoom, messages: messages)
    } catch {
        server.end()
        throw error
    }
    server.end()
}

private func measure(_ server: ServerProcess, users: Int, inOneRoom: Int, messages: Int) async throws {
    let clients = try await withThrowingTaskGroup(of: [BenchClient].self) { tasks in
        for lane in 0..<16 {
            tasks.addTask {
                var clients: [BenchClient] = []
                for number in stride(from: lane, to: users, by: 16) {
                    clients.append(try await BenchClient.registered("waiting\(number)", at: server))
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

/// A `roost serve` in a temporary directory, which an application service may register users with.
private struct ServerProcess {
    static let appserviceToken = "benchmark-appservice"
    let directory: TemporaryDirectory
    let pid: pid_t
    let port: Int

    static func start() async throws -> ServerProcess {
        let directory = TemporaryDirectory()
        let registration = """
            {"id":"bench","url":null,"as_token":"\(appserviceToken)","hs_token":"unused","sender_localpart":"bench",
            "rate_limited":false,"namespaces":{"users":[{"exclusive":false,"regex":"@waiting.*"}],"rooms":[],"aliases":[]}}
            """
        let file = "\(directory.path)/bench.yaml"
        try write(registration, to: file)
        let probe = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .bind(host: "127.0.0.1", port: 0).get()
        let port = probe.localAddress!.port!
        try await probe.close()
        let own = CommandLine.arguments[0].split(separator: "/", omittingEmptySubsequences: false).dropLast()
        let binary = getenv("ROOST_BINARY").map { String(cString: $0) } ?? own.joined(separator: "/") + "/roost"
        let words = [
            binary, "serve", "--data", "\(directory.path)/data", "--listen", "127.0.0.1:\(port)", "--no-rate-limits",
        ]
        setenv("ROOST_APPSERVICES", "[\(file)]", 1)
        var pid: pid_t = 0
        var arguments = words.map { strdup($0) } + [nil]
        defer { for case let argument? in arguments { free(argument) } }
        guard posix_spawn(&pid, binary, nil, nil, &arguments, environ) == 0 else {
            throw BenchFailure(
                what: "\(binary) can't be started; build it first: swift build -c release --product roost")
        }
        let server = ServerProcess(directory: directory, pid: pid, port: port)
        for _ in 0..<200 {
            if let client = try? await BenchClient(at: server),
                (try? await client.ask(.GET, "/_matrix/client/versions", ""))
                    != nil
            {
                return server
            }
            try await Task.sleep(for: .milliseconds(50))
        }
        server.end()
        throw BenchFailure(what: "the server doesn't answer")
    }

    private static func write(_ text: String, to path: String) throws {
        guard let file = fopen(path, "w") else { throw BenchFailure(what: "can't write \(path)") }
        fputs(text, file)
        fclose(file)
    }

    func end() {
        kill(pid, SIGTERM)
        var status: CInt = 0
        waitpid(pid, &status, 0)
    }

    /// Resident memory in MB.
    func memory() -> Double {
        let fields = line("/proc/\(pid)/statm").split(separator: " ")
        return fields.count > 1 ? (Double(fields[1]) ?? 0) * 4096 / 1e6 : 0
    }

    func cpuSeconds() -> Double {
        // After the name, which is in parentheses, come the state and numbers; user and system time are the 12th and 13th.
        let fields = line("/proc/\(pid)/stat").split(separator: ")").last?.split(separator: " ") ?? []
        guard fields.count > 13 else { return 0 }
        return ((Double(fields[11]) ?? 0) + (Double(fields[12]) ?? 0)) / Double(sysconf(CInt(_SC_CLK_TCK)))
    }

    private func line(_ path: String) -> String {
        guard let file = fopen(path, "r") else { return "" }
        defer { fclose(file) }
        var buffer = [CChar](repeating: 0, count: 4096)
        guard fgets(&buffer, 4096, file) != nil else { return "" }
        return String(decoding: buffer.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

private struct BenchFailure: Error, CustomStringConvertible {
    let what: String
    var description: String { what }
}

/// A client with a connection of its own: one request at a time, or a sync that is asked for again as soon as it is answered.
///
/// All but `room` and `isSender`, which are set before they are used, is touched on the event loop only.
private final class BenchClient: ChannelInboundHandler, @unchecked Sendable {
    typealias InboundIn = HTTPClientResponsePart
    static let loops = MultiThreadedEventLoopGroup(numberOfThreads: 1)

    var room = ""
    /// Whether it sends what the others wait for.
    var isSender = false
    private var token = ServerProcess.appserviceToken
    private var channel: (any Channel)!
    private var body: [UInt8] = []
    private var answer: EventLoopPromise<[UInt8]>?
    private var arrival: EventLoopPromise<Double>?
    private var isWaiting = false

    private let port: Int

    init(at server: ServerProcess) async throws {
        port = server.port
        try await connect()
    }

    private func connect() async throws {
        channel = try await ClientBootstrap(group: Self.loops)
            .channelInitializer { channel in
                channel.pipeline.addHTTPClientHandlers().flatMap { channel.pipeline.addHandler(self) }
            }
            .connect(host: "127.0.0.1", port: port).get()
    }

    static func registered(_ name: String, at server: ServerProcess) async throws -> BenchClient {
        let client = try await BenchClient(at: server)
        let answer = try await client.ask(
            .POST, "/_matrix/client/v3/register", #"{"type":"m.login.application_service","username":"\#(name)"}"#)
        client.token = answer["access_token"]?.string ?? ""
        return client
    }

    func ask(_ method: HTTPMethod, _ path: String, _ body: String) async throws -> JSONView {
        // One connection waits; who waits on it asks by another.
        if isWaiting { throw BenchFailure(what: "the connection waits for a sync") }
        // The server has closed one that lay idle while the other clients were made.
        if !channel.isActive { try await connect() }
        let promise = channel.eventLoop.makePromise(of: [UInt8].self)
        let answer = try await channel.eventLoop.flatSubmit {
            self.answer = promise
            self.write(method, path, body)
            return promise.futureResult
        }.get()
        return try JSONDocument(parsing: answer).root
    }

    private func write(_ method: HTTPMethod, _ path: String, _ body: String) {
        var head = HTTPRequestHead(version: .http1_1, method: method, uri: path)
        head.headers = [
            "Host": "localhost", "Authorization": "Bearer \(token)", "Content-Length": "\(body.utf8.count)",
        ]
        channel.write(HTTPClientRequestPart.head(head), promise: nil)
        if !body.isEmpty {
            channel.write(HTTPClientRequestPart.body(.byteBuffer(ByteBuffer(string: body))), promise: nil)
        }
        channel.writeAndFlush(HTTPClientRequestPart.end(nil), promise: nil)
    }

    /// Syncs for the first time, and from then on always again. The one who sends doesn't wait.
    func beginWaiting() async throws {
        let first = try await ask(
            .GET, "/_matrix/client/v3/sync?filter=%7B%22room%22:%7B%22timeline%22:%7B%22limit%22:1%7D%7D%7D", "")
        guard let next = first["next_batch"]?.string else { throw BenchFailure(what: "a sync failed") }
        guard !isSender else { return }
        try await channel.eventLoop.submit {
            self.isWaiting = true
            self.wait(since: next)
        }.get()
    }

    private func wait(since: String) {
        write(.GET, "/_matrix/client/v3/sync?timeout=300000&since=\(since)", "")
    }

    /// When the next answer to a sync with an event in it is complete, in seconds of the monotonic clock.
    func expectAnswer() -> EventLoopFuture<Double> {
        let promise = channel.eventLoop.makePromise(of: Double.self)
        channel.eventLoop.execute { self.arrival = promise }
        return promise.futureResult
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head: body.removeAll(keepingCapacity: true)
        case .body(let part): body.append(contentsOf: part.readableBytesView)
        case .end:
            guard isWaiting else {
                answer?.succeed(body)
                answer = nil
                return
            }
            let root = try? JSONDocument(parsing: body).root
            if root?["rooms"]?["join"] != nil {
                arrival?.succeed(Bench.wallSeconds())
                arrival = nil
            }
            wait(since: root?["next_batch"]?.string ?? "")
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        answer?.fail(error)
        arrival?.fail(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        answer?.fail(BenchFailure(what: "the server closed the connection"))
        arrival?.fail(BenchFailure(what: "the server closed the connection"))
    }
}
