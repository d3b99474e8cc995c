import Homeserver
import NIOCore
import NIOHTTP1
import NIOPosix

@testable import HomeserverHTTP

/// The two ways to ask a router: in memory, and through a real socket. The same tests run on both.
enum Way: CaseIterable {
    case memory, socket

    func ask(
        _ router: Router, _ method: HTTPMethod, _ target: String, headers: [(String, String)] = [], body: String? = nil
    ) async throws -> SocketClient.Answer {
        switch self {
        case .memory:
            let response = await router.respond(
                to: Request(
                    method, target, headers: HTTPHeaders(headers),
                    body: RequestBody(ByteBuffer(string: body ?? "")), id: "test",
                    eventLoop: MultiThreadedEventLoopGroup.singleton.next()))
            var bytes: [UInt8] = []
            if case .bytes(let body) = response.body { bytes = body }
            return .init(
                status: Int(response.status.code), headers: response.headers.map { ($0.name, $0.value) }, body: bytes)
        case .socket:
            return try await withServer(router) { server in
                let client = try await SocketClient(port: server.port)
                var text = "\(method.rawValue) \(target) HTTP/1.1\r\nHost: localhost\r\n"
                for (name, value) in headers { text += "\(name): \(value)\r\n" }
                if let body { text += "Content-Length: \(body.utf8.count)\r\n" }
                try await client.send(text + "\r\n" + (body ?? ""))
                return try await client.answer(hasBody: method != .HEAD)
            }
        }
    }
}

/// A server on a free port for the time of `work`.
func withServer<Result>(
    _ router: Router, limits: ServerLimits = .patient, trustedProxies: [AddressRange] = [],
    served: Endpoint.APIs = .all, tls: Listener.TLSFiles? = nil, willDrain: @escaping @Sendable () async -> Void = {},
    _ work: (HTTPServer) async throws -> Result
) async throws -> Result {
    let server = try await HTTPServer.start(
        [Listener(.tcp(host: "127.0.0.1", port: 0), tls: tls, serves: served)], trustedProxies: trustedProxies,
        limits: limits, willDrain: willDrain, reply: router.reply)
    let result: Result
    do { result = try await work(server) } catch {
        await server.shutdown(within: .zero)
        throw error
    }
    await server.shutdown(within: .zero)
    return result
}

extension HTTPServer {
    var port: Int {
        guard case .tcp(_, let port) = addresses[0] else { return 0 }
        return port
    }
}

extension ServerLimits {
    /// Deadlines that no test meets by accident: many tests share few threads, and a client may have to wait for its turn.
    static var patient: ServerLimits {
        var limits = ServerLimits()
        limits.firstRequest = .minutes(10)
        limits.idle = .minutes(10)
        limits.bodyGrace = .minutes(10)
        limits.write = .minutes(10)
        return limits
    }
}
