import Homeserver
import NIOHTTP1
import NIOPosix
import Testing

@testable import HomeserverHTTP

@Suite struct RouterTests {
    /// Answers with the parameters it got, so that a test sees what the router made of a path.
    private static func echo(_ names: String...) -> Endpoint.Handler {
        { request in .text(names.map { "\($0)=\(request[$0])" }.joined(separator: ";")) }
    }

    private let router = Router(
        [
            Endpoint(
                .GET, "/_matrix/client/{version:v3|r0}/rooms/{roomId}/state/{eventType}/{stateKey}",
                authentication: .none, handler: echo("version", "roomId", "eventType", "stateKey")),
            Endpoint(
                .PUT, "/_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}", authentication: .none,
                handler: echo("roomId", "eventType", "stateKey")),
            Endpoint(
                .PUT,
                [
                    "/_matrix/client/v3/rooms/{roomId}/optional/{eventType}",
                    "/_matrix/client/v3/rooms/{roomId}/optional/{eventType}/{stateKey}",
                ], authentication: .none, handler: echo("eventType", "stateKey")),
            Endpoint(.GET, "/_matrix/client/v3/sync", authentication: .none, handler: echo()),
            Endpoint(.POST, "/_matrix/client/v3/rooms/{roomId}/join", authentication: .none, handler: echo("roomId")),
            Endpoint(.GET, "/_matrix/client/v3/rooms/joined/members", authentication: .none) { _ in .text("literal") },
            Endpoint(.GET, "/query", authentication: .none) { request in
                .text("\(request.query["a"] ?? "nil") \(request.query.all("a").joined(separator: ",")) ")
            },
            Endpoint(.GET, "/limited", authentication: .none) { _ in throw MatrixError.limitExceeded(retryAfterMS: 1500)
            },
            Endpoint(.GET, "/broken", authentication: .none) { _ in throw Secret() },
            Endpoint(.GET, "/federation", api: .federation, authentication: .none) { _ in .text("federation") },
            Endpoint(.PUT, "/json", authentication: .none) { request in
                .text(try await request.json(upTo: 100).root["key"]?.string ?? "absent")
            },
        ])

    private struct Secret: Error { let password = "hunter2" }

    @Test("path parameters are decoded exactly once", arguments: Way.allCases)
    func decodesOnce(_ way: Way) async throws {
        let answer = try await way.ask(router, .GET, "/_matrix/client/v3/rooms/%21a%3Ab/state/m.%252F/%2F+%25")
        #expect(answer.status == 200)
        #expect(answer.text == "version=v3;roomId=!a:b;eventType=m.%2F;stateKey=/+%")
    }

    @Test("an empty last segment is an empty parameter", arguments: Way.allCases)
    func emptyLastSegment(_ way: Way) async throws {
        let answer = try await way.ask(router, .GET, "/_matrix/client/r0/rooms/!a:b/state/m.room.name/")
        #expect(answer.text == "version=r0;roomId=!a:b;eventType=m.room.name;stateKey=")
    }

    @Test("a parameter that only the other path of the endpoint has is empty", arguments: Way.allCases)
    func otherPath(_ way: Way) async throws {
        let answer = try await way.ask(router, .PUT, "/_matrix/client/v3/rooms/!a:b/optional/m.room.name", body: "{}")
        #expect(answer.text == "eventType=m.room.name;stateKey=")
    }

    @Test(
        "what isn't a path of an endpoint is unknown",
        arguments: [
            "/", "//", "/_matrix", "/_matrix/client/v3/sync/", "/_matrix/client/v3/Sync", "/_matrix/client/v1/sync",
            "/_matrix/client/v3/rooms//join", "/_matrix/client/v2/rooms/a/state/b/c", "/_matrix/client/v3/sync/x",
            "/" + String(repeating: "a/", count: 500),
        ])
    func unknownPath(_ path: String) async throws {
        for way in Way.allCases {
            let answer = try await way.ask(router, .GET, path)
            #expect(answer.status == 404)
            #expect(answer.text.contains(#""errcode":"M_UNRECOGNIZED""#))
            #expect(answer.header("Access-Control-Allow-Origin") == "*")
        }
    }

    @Test("literals may be percent-encoded, and win over parameters", arguments: Way.allCases)
    func literals(_ way: Way) async throws {
        #expect(try await way.ask(router, .GET, "/_matrix/client/v3/s%79nc").status == 200)
        #expect(try await way.ask(router, .GET, "/_matrix/client/v3/rooms/joined/members").text == "literal")
        #expect(
            try await way.ask(router, .POST, "/_matrix/client/v3/rooms/joined/join", body: "").text == "roomId=joined")
    }

    @Test("the wrong method of a known path is 405 with M_UNRECOGNIZED and Allow", arguments: Way.allCases)
    func wrongMethod(_ way: Way) async throws {
        let answer = try await way.ask(router, .DELETE, "/_matrix/client/v3/rooms/!a:b/state/m.room.name/")
        #expect(answer.status == 405)
        #expect(answer.text.contains("M_UNRECOGNIZED"))
        #expect(answer.header("Allow") == "GET, PUT, HEAD, OPTIONS")
    }

    @Test("OPTIONS answers for browsers everywhere and runs nothing", arguments: Way.allCases)
    func preflight(_ way: Way) async throws {
        for path in ["/limited", "/_matrix/client/v3/sync", "/nothing"] {
            let answer = try await way.ask(router, .OPTIONS, path)
            #expect(answer.status == 204)
            #expect(answer.header("Access-Control-Allow-Headers")?.contains("Authorization") == true)
            #expect(answer.header("Access-Control-Allow-Methods")?.contains("PUT") == true)
        }
    }

    @Test("HEAD answers as GET does, without the body", arguments: Way.allCases)
    func head(_ way: Way) async throws {
        let answer = try await way.ask(router, .HEAD, "/_matrix/client/v3/rooms/joined/members")
        #expect(answer.status == 200)
        #expect(answer.header("Content-Length") == "7")
        #expect(answer.body.isEmpty)
    }

    @Test("query parameters are decoded as forms write them, several of a name kept", arguments: Way.allCases)
    func query(_ way: Way) async throws {
        #expect(try await way.ask(router, .GET, "/query?a=1+%2B%202&b&a=%C3%A9&a=%ff").text == "1 + 2 1 + 2,é ")
        #expect(try await way.ask(router, .GET, "/query?a").text == "  ")
        #expect(try await way.ask(router, .GET, "/query").text == "nil  ")
    }

    @Test("an invalid path parameter is M_INVALID_PARAM", arguments: ["%zz", "%ff", "%", "%4"])
    func invalidParameter(_ text: String) async throws {
        let answer = try await Way.memory.ask(router, .POST, "/_matrix/client/v3/rooms/\(text)/join")
        #expect(answer.status == 400)
        #expect(answer.text.contains("M_INVALID_PARAM"))
    }

    @Test("a rate limit says in header and body when to try again", arguments: Way.allCases)
    func rateLimit(_ way: Way) async throws {
        let answer = try await way.ask(router, .GET, "/limited")
        #expect(answer.status == 429)
        #expect(answer.header("Retry-After") == "2")
        #expect(answer.text.contains(#""retry_after_ms":1500"#))
        #expect(answer.header("Access-Control-Expose-Headers") == "Retry-After")
    }

    @Test("A29: an unexpected error is M_UNKNOWN and tells nothing of its reason", arguments: Way.allCases)
    func unexpectedError(_ way: Way) async throws {
        let answer = try await way.ask(router, .GET, "/broken")
        #expect(answer.status == 500)
        #expect(answer.text.contains("M_UNKNOWN"))
        #expect(!answer.text.contains("hunter2") && !answer.text.contains("Secret"))
    }

    @Test("an API that a listener doesn't serve isn't there")
    func servedAPIs() async throws {
        try await withServer(router, served: [Endpoint.API.client].reduce(into: []) { $0.formUnion($1.asSet) }) {
            let client = try await SocketClient(port: $0.port)
            try await client.send("GET /federation HTTP/1.1\r\nHost: a\r\n\r\nGET /query HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(try await client.answer().status == 404)
            #expect(try await client.answer().status == 200)
        }
    }

    @Test("a body must be a JSON object within its limit", arguments: Way.allCases)
    func jsonBody(_ way: Way) async throws {
        #expect(try await way.ask(router, .PUT, "/json", body: #"{"key":"value"}"#).text == "value")
        #expect(try await way.ask(router, .PUT, "/json", body: "{").text.contains("M_NOT_JSON"))
        #expect(try await way.ask(router, .PUT, "/json", body: "").text.contains("M_NOT_JSON"))
        #expect(try await way.ask(router, .PUT, "/json", body: "[]").text.contains("M_BAD_JSON"))
        let large = try await way.ask(router, .PUT, "/json", body: String(repeating: " ", count: 101))
        #expect(large.status == 413)
        #expect(large.text.contains("M_TOO_LARGE"))
    }

    @Test("the gate decides before the handler, and may change the request")
    func gate() async throws {
        let router = Router(
            [Endpoint(.GET, "/gated", authentication: .accessToken) { .text($0.headers.first(name: "Passed") ?? "") }]
        ) { request, endpoint in
            #expect(endpoint.authentication == .accessToken)
            guard request.headers.first(name: "Authorization") == "Bearer secret" else {
                throw MatrixError.missingToken
            }
            request.headers.add(name: "Passed", value: "yes")
        }
        for way in Way.allCases {
            #expect(try await way.ask(router, .GET, "/gated").status == 401)
            #expect(
                try await way.ask(router, .GET, "/gated", headers: [("Authorization", "Bearer secret")]).text == "yes")
        }
    }

    @Test("A29: values of secret query parameters are not in the log")
    func redaction() {
        let request = Request(
            .GET, "/sync?access_token=secret&since=s1&Login%54oken=x&client_secret=y", id: "x",
            eventLoop: MultiThreadedEventLoopGroup.singleton.next())
        #expect(request.redactedTarget == "/sync?access_token=…&since=s1&Login%54oken=…&client_secret=…")
    }
}
