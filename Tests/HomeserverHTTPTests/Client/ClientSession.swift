import Logging
import MatrixCore
import NIOCore
import NIOHTTP1
import NIOPosix
import RoostTestSupport
import Testing

@testable import Homeserver
@testable import HomeserverHTTP

/// The Client-Server API of a server in memory, asked as a client asks it.
///
/// Every answer is held against the specification: one that departs from it fails the test that asked.
struct ClientSession {
    let server: TestServer
    let router: Router

    init(_ server: TestServer, logger: Logger = Logger(label: "http")) {
        self.server = server
        let api = ClientAPI(server.homeserver)
        router = Router(api.endpoints, logger: logger, admit: api.gate)
    }

    struct Answer {
        let status: Int
        let headers: HTTPHeaders
        let bytes: [UInt8]

        /// The body as JSON; null if it is none.
        var json: JSON { (try? JSONDocument(parsing: bytes).root.json) ?? .null }
        var code: String? { json["errcode"]?.stringValue }
        /// The beginning of the answer, for the message of a failed test.
        var summary: String { "\(status) \(String(decoding: bytes.prefix(300), as: UTF8.self))" }
    }

    func ask(
        _ method: HTTPMethod, _ target: String, token: String? = nil, _ body: JSON? = nil, raw: [UInt8]? = nil,
        headers: [(String, String)] = [], from address: String? = nil,
        sourceLocation: SourceLocation = #_sourceLocation
    ) async -> Answer {
        var all = HTTPHeaders(headers)
        if let token { all.add(name: "Authorization", value: "Bearer \(token)") }
        let response = await router.respond(
            to: Request(
                method, target, headers: all, body: RequestBody(ByteBuffer(bytes: raw ?? body?.encoded() ?? [])),
                remoteAddress: address.flatMap { IPAddress($0) }.map { ClientAddress($0) } ?? .local, id: "test",
                eventLoop: MultiThreadedEventLoopGroup.singleton.next()))
        var bytes: [UInt8] = []
        if case .bytes(let body) = response.body { bytes = body }
        Conformance.check(method.rawValue, target, response, at: sourceLocation)
        return Answer(status: Int(response.status.code), headers: response.headers, bytes: bytes)
    }

    /// Registers a user and returns the access token.
    func register(_ name: String) async -> String {
        let answer = await ask(
            .POST, "/_matrix/client/v3/register", token: nil,
            ["username": .string(name), "password": "secret", "auth": ["type": "m.login.dummy"]])
        return answer.json["access_token"]?.stringValue ?? ""
    }

    /// A public room that somebody makes.
    func room(of token: String) async -> String {
        let answer = await ask(.POST, "/_matrix/client/v3/createRoom", token, ["preset": "public_chat"])
        return answer.json["room_id"]?.stringValue ?? ""
    }

    func ask(
        _ method: HTTPMethod, _ target: String, _ token: String?, _ body: JSON? = nil,
        sourceLocation: SourceLocation = #_sourceLocation
    ) async -> Answer {
        await ask(method, target, token: token, body, sourceLocation: sourceLocation)
    }
}
