import MatrixCore
import RoostTestSupport
import Synchronization
import Testing

@testable import Database
@testable import Homeserver

@Suite("What a question to another server says of it")
struct GivingUpTests {
    private let victim = ServerName(unchecked: "victim.example")

    /// A network on which nobody answers until the task is cancelled, and then the connection breaks.
    private final class Silence: FederationTransport {
        let begun: AsyncStream<Void>
        private let begin: AsyncStream<Void>.Continuation

        init() { (begun, begin) = AsyncStream<Void>.makeStream() }

        func send(_ request: ServerRequest) async throws -> ServerResponse {
            begin.yield()
            let (never, hold) = AsyncStream<Void>.makeStream()
            for await _ in never {}
            hold.finish()
            throw TransportError(.unreachable, "the connection broke")
        }

        func get(
            _ url: String, into sink: (any AnswerSink)?, timeout: Int64, mostBytes: Int
        ) async throws -> ServerResponse { throw TransportError(.unreachable, "nobody") }

        func close() async {}
    }

    /// A network on which every question fails in one way.
    private struct Failing: FederationTransport {
        let error: TransportError

        func send(_ request: ServerRequest) async throws -> ServerResponse { throw error }

        func get(
            _ url: String, into sink: (any AnswerSink)?, timeout: Int64, mostBytes: Int
        ) async throws -> ServerResponse { throw error }

        func close() async {}
    }

    @Test("a question that is given up because its client went says nothing of the server that was asked")
    func cancelled() async throws {
        let silence = Silence()
        let server = try await TestServer(transport: silence)
        let asking = Task {
            try await server.homeserver.directory.resolve(RoomAlias("#room:victim.example")!)
        }
        for await _ in silence.begun { break }
        asking.cancel()
        await #expect(throws: CancellationError.self) { try await asking.value }
        #expect(server.homeserver.directory.client.health.failure(of: victim) == nil)
        await server.close()
    }

    /// A network on which answers come when a test says so, and connections break when a task is cancelled.
    private final class Breakable: FederationTransport {
        let inner: any FederationTransport
        let begun: AsyncStream<Void>
        private let begin: AsyncStream<Void>.Continuation
        private let (told, tell) = AsyncStream<Void>.makeStream()

        init(_ inner: any FederationTransport) {
            self.inner = inner
            (begun, begin) = AsyncStream<Void>.makeStream()
        }

        func letGo() { tell.yield() }

        func send(_ request: ServerRequest) async throws -> ServerResponse {
            begin.yield()
            for await _ in told { break }
            if Task.isCancelled { throw TransportError(.unreachable, "the connection broke") }
            return try await inner.send(request)
        }

        func get(
            _ url: String, into sink: (any AnswerSink)?, timeout: Int64, mostBytes: Int
        ) async throws -> ServerResponse {
            try await inner.get(url, into: sink, timeout: timeout, mostBytes: mostBytes)
        }

        func close() async { await inner.close() }
    }

    @Test("keys that somebody began to fetch come, should that one go")
    func cancelledKeys() async throws {
        let network = Mutex<Breakable?>(nil)
        let scene = try await FederationScene(
            1,
            wrap: { inner in
                let transport = Breakable(inner)
                network.withLock { $0 = transport }
                return transport
            })
        let transport = try #require(network.withLock { $0 })
        let other = HostileServer("new.example", on: scene.network, clock: scene[0].clock)
        let keys = scene[0].homeserver.federation.keys
        let now = scene[0].clock.now
        let first = Task { try await keys.key(other.key.keyID, of: other.name, at: now) }
        for await _ in transport.begun { break }
        first.cancel()
        transport.letGo()
        #expect(try await first.value != nil)
        #expect(scene[0].homeserver.directory.client.health.failure(of: other.name) == nil)
        await scene.close()
    }

    @Test("what this server had too much to do for is nobody's failure", arguments: [true, false])
    func busy(isBusy: Bool) async throws {
        let server = try await TestServer(transport: Failing(error: TransportError(isBusy ? .busy : .timedOut, "late")))
        await #expect(throws: MatrixError.self) {
            try await server.homeserver.directory.resolve(RoomAlias("#room:victim.example")!)
        }
        #expect((server.homeserver.directory.client.health.failure(of: victim) == nil) == isBusy)
        await server.close()
    }

    @Test(
        "A17: what another server says of sessions is not told to clients, whose sessions are here",
        arguments: [
            ("M_NOT_FOUND", 404, true), ("M_FORBIDDEN", 403, true), ("M_INCOMPATIBLE_ROOM_VERSION", 400, true),
            ("M_NOT_YET_UPLOADED", 504, true), ("ORG.MATRIX.MSC4155.INVITE_BLOCKED", 403, true),
            ("M_UNKNOWN_TOKEN", 403, false), ("M_UNKNOWN_TOKEN", 401, false), ("M_MISSING_TOKEN", 403, false),
            ("M_USER_LOCKED", 403, false), ("M_USER_DEACTIVATED", 403, false), ("M_GUEST_ACCESS_FORBIDDEN", 403, false),
            ("M_UNAUTHORIZED", 403, false), ("M_CONSENT_NOT_GIVEN", 403, false), ("M_FORBIDDEN", 500, false),
        ])
    func codes(code: String, status: Int, isTold: Bool) {
        let error = FederationFailure(server: victim, status: status, code: code, reason: "because").clientError
        #expect(error.status == (isTold ? status : 502))
        #expect((error.code.name == code) == isTold)
    }

    @Test("A09: who signs as servers that nobody knows has this one neither keep their names nor ask without end")
    func strangers() async throws {
        let scene = try await FederationScene(1)
        let server = scene[0]
        let key = SigningKey(seed: [UInt8](repeating: 4, count: 32), version: "a")!
        func header(_ name: String) -> String {
            RequestSignature(
                signing: "GET", target: "/_matrix/federation/v1/publicRooms", content: nil,
                from: ServerName(unchecked: name), to: server.configuration.serverName, with: key
            ).header
        }
        func ask(_ headers: [String], _ mayAsk: () throws -> Void) async throws {
            _ = try await server.homeserver.federation.authenticate(
                headers, method: "GET", target: "/_matrix/federation/v1/publicRooms", content: nil, mayAsk: mayAsk)
        }
        var count = 0
        await #expect(throws: MatrixError.self) {
            try await ask((0..<99).map { header("s\($0).example") }) { count += 1 }
        }
        #expect(count == 1)
        await #expect(throws: MatrixError.self) {
            try await ask((0..<99).map { _ in header("same.example") }) { count += 1 }
        }
        // Of one server it is asked once in a while, however many keys of it are named.
        #expect(count == 2)
        for name in ["s0.example", "s1.example", "same.example"] {
            #expect(try await server.homeserver.database.existingNumber(ofServer: ServerName(unchecked: name)) == nil)
        }
        // Beyond the limit nobody is asked.
        let error = await #expect(throws: MatrixError.self) {
            try await ask([header("late.example")]) { throw MatrixError.limitExceeded(retryAfterMS: 1_000) }
        }
        #expect(error?.status == 429)
        let unknown = ServerName(unchecked: "unknown.example")
        let answer = try await server.homeserver.federation.keys(of: [unknown: 0]) {
            throw MatrixError.limitExceeded(retryAfterMS: 1_000)
        }
        #expect(answer["server_keys"] == [])
        #expect(!scene.network.exchanges.contains { $0.to == unknown || $0.to.string == "late.example" })
        await scene.close()
    }
}
