import Homeserver
import NIOHTTP1
import RoostTestSupport
import Testing

@testable import HomeserverHTTP

@Suite("The listener for other servers")
struct FederationListenerTests {
    private func withListener(_ work: (Int) async throws -> Void) async throws {
        let server = try await TestServer()
        let router = Router(
            ClientAPI(server.homeserver).endpoints + FederationAPI(server.homeserver).endpoints,
            admit: ClientAPI(server.homeserver).gate)
        try await withServer(router, served: Endpoint.APIs([.federation])) { try await work($0.port) }
        await server.close()
    }

    @Test(
        "A27 a request within a request is none, whatever lengths it claims",
        arguments: [
            "Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 6", "Content-Length: 5, 6", "Content-Length: +5",
            "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: xchunked", "Transfer-Encoding : chunked",
            "X: y\r\n Content-Length: 5", "Content-Length: 0x5",
        ])
    func smuggling(headers: String) async throws {
        try await withListener { port in
            let client = try await SocketClient(port: port)
            let inner = "GET /_matrix/key/v2/server HTTP/1.1\r\nHost: a\r\n\r\n"
            try await client.send(
                "PUT /_matrix/federation/v1/send/x HTTP/1.1\r\nHost: a\r\n\(headers)\r\n\r\n0\r\n\r\n\(inner)")
            let answer = try await client.answer()
            #expect(answer.status == 400 || answer.status == 501, "\(headers): \(answer.status)")
            // Nothing that stands behind it is answered: the connection is over.
            await #expect(throws: (any Error).self) { _ = try await client.answer() }
        }
    }

    @Test("A27 what stands in a path or in the Authorization header becomes no line of an answer")
    func injection() async throws {
        try await withListener { port in
            for (path, header) in [
                ("/_matrix/federation/v1/event/%0d%0aX-Injected:%20y", "X-Matrix origin=\"a\""),
                (
                    "/_matrix/federation/v1/query/profile?user_id=%40a%3Ab%0d%0aX-Injected:%20y",
                    "X-Matrix origin=a,key=b,sig=c"
                ),
                (
                    "/_matrix/federation/v1/version%0d%0aX-Injected:%20y",
                    "X-Matrix origin=\"a\\r\\nX-Injected: y\",key=\"ed25519:a\",sig=\"b\""
                ),
                (
                    "/_matrix/key/v2/query/evil%0d%0aX-Injected:%20y",
                    "X-Matrix origin=evil.example,key=\"ed25519:%0d%0a\",sig=x"
                ),
            ] {
                let client = try await SocketClient(port: port)
                try await client.send("GET \(path) HTTP/1.1\r\nHost: a\r\nAuthorization: \(header)\r\n\r\n")
                let answer = try await client.answer()
                #expect(answer.header("X-Injected") == nil)
                #expect((400..<500).contains(answer.status), "\(path): \(answer.status)")
            }
        }
    }

    @Test("A32 clients' operations are not served there, however their path is spelled")
    func otherAPIs() async throws {
        try await withListener { port in
            for path in [
                "/_matrix/client/v3/login", "//_matrix/client/v3/login", "/_matrix/federation/../client/v3/login",
                "/_matrix/%63lient/v3/login", "http://a/_matrix/client/v3/login", "/_matrix/federation/v1/%2e%2e/login",
            ] {
                let client = try await SocketClient(port: port)
                try await client.send("GET \(path) HTTP/1.1\r\nHost: a\r\n\r\n")
                let status = try await client.answer().status
                #expect((400..<500).contains(status), "\(path): \(status)")
            }
            let client = try await SocketClient(port: port)
            try await client.send("GET /_matrix/federation/v1/version HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(try await client.answer().status == 200)
        }
    }
}
