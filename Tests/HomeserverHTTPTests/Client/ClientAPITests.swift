import MatrixCore
import NIOHTTP1
import RoostTestSupport
import Testing

@testable import Homeserver
@testable import HomeserverHTTP

@Suite("Client-Server API")
struct ClientAPITests {
    @Test("registration asks for authentication first, then gives a session")
    func register() async throws {
        let client = ClientSession(try await TestServer())
        let challenge = await client.ask(
            .POST, "/_matrix/client/v3/register", nil, ["username": "alice", "password": "x"])
        #expect(challenge.status == 401)
        #expect(challenge.json["flows"] == [["stages": ["m.login.dummy"]]])
        #expect(challenge.json["session"]?.stringValue?.isEmpty == false)
        let token = await client.register("alice")
        let whoami = await client.ask(.GET, "/_matrix/client/v3/account/whoami", token)
        #expect(whoami.status == 200 && whoami.json["user_id"] == "@alice:localhost")
        let taken = await client.ask(.POST, "/_matrix/client/v3/register", nil, ["username": "alice", "password": "x"])
        #expect(taken.status == 400 && taken.code == "M_USER_IN_USE")
        let guest = await client.ask(.POST, "/_matrix/client/v3/register?kind=guest", nil, [:])
        #expect(guest.status == 403 && guest.code == "M_GUEST_ACCESS_FORBIDDEN")
        await client.server.close()
    }

    @Test("login tells its flows, takes a password, and ends with logout")
    func login() async throws {
        let client = ClientSession(try await TestServer())
        _ = await client.register("alice")
        let path = "/_matrix/client/v3/login"
        #expect(
            await client.ask(.GET, path, nil).json["flows"] == [
                ["type": "m.login.password"], ["type": "m.login.token", "get_login_token": true],
                ["type": "m.login.application_service"],
            ])
        func attempt(_ user: String, _ password: String) async -> ClientSession.Answer {
            await client.ask(
                .POST, path, nil,
                [
                    "type": "m.login.password", "identifier": ["type": "m.id.user", "user": .string(user)],
                    "password": .string(password),
                ])
        }
        for user in ["alice", "@alice:localhost", "Alice"] {
            let answer = await attempt(user, "secret")
            #expect(answer.status == 200 && answer.json["user_id"] == "@alice:localhost")
        }
        let wrong = await attempt("alice", "guess")
        #expect(wrong.status == 403 && wrong.code == "M_FORBIDDEN")
        let unknownType = await client.ask(.POST, path, nil, ["type": "m.login.magic"])
        #expect(unknownType.status == 400 && unknownType.code == "M_UNKNOWN")
        let token = await attempt("alice", "secret").json["access_token"]?.stringValue
        #expect(await client.ask(.POST, "/_matrix/client/v3/logout", token).status == 200)
        let after = await client.ask(.GET, "/_matrix/client/v3/account/whoami", token)
        #expect(after.status == 401 && after.code == "M_UNKNOWN_TOKEN")
        await client.server.close()
    }

    @Test("every endpoint that needs a token refuses requests without one and with a wrong one")
    func tokens() async throws {
        let client = ClientSession(try await TestServer())
        let api = ClientAPI(client.server.homeserver)
        var tried = 0
        for endpoint in api.endpoints where endpoint.authentication == .accessToken {
            for pattern in endpoint.patterns {
                let path = Self.path(of: pattern)
                let without = await client.ask(endpoint.method, path, nil, [:])
                #expect(without.status == 401 && without.code == "M_MISSING_TOKEN", "\(endpoint.method) \(path)")
                let wrong = await client.ask(endpoint.method, path, "nobody's", [:])
                #expect(wrong.status == 401 && wrong.code == "M_UNKNOWN_TOKEN", "\(endpoint.method) \(path)")
                let inQuery = await client.ask(endpoint.method, path + "?access_token=nobodys", nil, [:])
                #expect(inQuery.status == 401 && inQuery.code == "M_UNKNOWN_TOKEN", "\(endpoint.method) \(path)")
                tried += 1
            }
        }
        #expect(tried > 30)
        await client.server.close()
    }

    @Test("no endpoint fails inwardly, whatever the body, and none takes what isn't a JSON object")
    func bodies() async throws {
        let client = ClientSession(try await TestServer())
        let token = await client.register("alice")
        _ = try await client.server.homeserver.accounts.setAdmin(true, of: "alice")
        let bodies: [[UInt8]] = [
            Array("".utf8), Array("[]".utf8), Array("{".utf8), Array("null".utf8), Array(#"{"a":1}{"#.utf8),
            [0xff, 0xfe],
            Array(
                #"{"user_id":7,"typing":"x","name":[],"preset":{},"invite":"@a:b","initial_state":[1],"auth":3}"#.utf8),
            Array(String(repeating: "[", count: 5_000).utf8),
        ]
        for endpoint in ClientAPI(client.server.homeserver).endpoints where endpoint.method != .GET {
            for pattern in endpoint.patterns {
                for (index, body) in bodies.enumerated() {
                    // These take files, forms or nothing.
                    if ["/media/", "/fallback/", "/logout"].contains(where: pattern.description.contains) { continue }
                    let answer = await client.ask(endpoint.method, Self.path(of: pattern), token: token, raw: body)
                    #expect(answer.status < 500, "\(endpoint.method) \(pattern) \(index): \(answer.json)")
                    let takesNoBody = endpoint.method == .DELETE || pattern.description.hasSuffix("/forget")
                    if [1, 2, 3, 4, 5, 7].contains(index), !takesNoBody {
                        #expect(answer.status == 400, "\(endpoint.method) \(pattern) \(index): \(answer.json)")
                        #expect(
                            ["M_NOT_JSON", "M_BAD_JSON", "M_INVALID_PARAM"].contains(answer.code),
                            "\(endpoint.method) \(pattern) \(index): \(answer.json)")
                    }
                }
            }
        }
        await client.server.close()
    }

    /// A path of the pattern, with parameters of the right form that name nothing there is.
    static func path(of pattern: PathPattern) -> String {
        let values = [
            "roomId": "!nowhere:localhost", "roomIdOrAlias": "!nowhere:localhost", "eventId": "$nothing",
            "userId": "@alice:localhost",
            "roomAlias": "%23none:localhost", "filterId": "1", "receiptType": "m.read", "eventType": "m.room.message",
            "txnId": "1", "stateKey": "", "serverName": "localhost", "mediaId": "abc", "fileName": "x", "version": "v3",
        ]
        return pattern.segments.reduce(into: "") { path, segment in
            switch segment {
            case .literal(let text): path += "/\(text)"
            case .parameter(let name): path += "/\(values[name] ?? "x")"
            case .choice(_, let choices): path += "/\(choices[0])"
            }
        }
    }

    @Test("unknown paths are 404 and unknown methods 405, both M_UNRECOGNIZED")
    func unrecognized() async throws {
        let client = ClientSession(try await TestServer())
        for path in ["/_matrix/client/v3/nothing", "/_matrix/client/v9/sync", "/_matrix", "/other"] {
            let answer = await client.ask(.GET, path, nil)
            #expect(answer.status == 404 && answer.code == "M_UNRECOGNIZED")
        }
        for (method, path) in [(HTTPMethod.DELETE, "/_matrix/client/v3/sync"), (.PATCH, "/_matrix/client/versions")] {
            let answer = await client.ask(method, path, nil)
            #expect(answer.status == 405 && answer.code == "M_UNRECOGNIZED")
        }
        await client.server.close()
    }

    @Test("a conversation over the API: create, invite, join, send, read, leave")
    func conversation() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice"), bob = await client.register("bob")
        let created = await client.ask(
            .POST, "/_matrix/client/v3/createRoom", alice,
            ["name": "Den", "invite": ["@bob:localhost"], "is_direct": true])
        let room = try #require(created.json["room_id"]?.stringValue)
        let base = "/_matrix/client/v3/rooms/\(room)"
        let sync = await client.ask(.GET, "/_matrix/client/v3/sync", bob)
        let invite = sync.json["rooms"]?["invite"]?[room]?["invite_state"]?["events"]?.arrayValue ?? []
        #expect(invite.contains { $0["content"]?["is_direct"] == true })
        #expect(
            await client.ask(.POST, "/_matrix/client/v3/join/\(room)", bob, [:]).json["room_id"]?.stringValue == room)
        #expect(await client.ask(.POST, "\(base)/join", bob, [:]).status == 200)
        let sent = await client.ask(.PUT, "\(base)/send/m.room.message/1", bob, ["msgtype": "m.text", "body": "hi"])
        let event = try #require(sent.json["event_id"]?.stringValue)
        let page = await client.ask(.GET, "\(base)/messages?dir=b&limit=1", alice)
        #expect(page.json["chunk"]?.arrayValue?.first?["event_id"]?.stringValue == event)
        #expect(await client.ask(.GET, "\(base)/event/\(event)", alice).json["content"]?["body"] == "hi")
        #expect(await client.ask(.GET, "\(base)/state/m.room.name/", alice).json == ["name": "Den"])
        #expect(await client.ask(.GET, "\(base)/state/m.room.name", alice).json == ["name": "Den"])
        let whole = await client.ask(.GET, "\(base)/state/m.room.name?format=event", alice)
        #expect(whole.json["type"] == "m.room.name" && whole.json["sender"] == "@alice:localhost")
        let missing = await client.ask(.GET, "\(base)/state/m.room.topic", alice)
        #expect(missing.status == 404 && missing.code == "M_NOT_FOUND")
        let members = await client.ask(.GET, "\(base)/members?membership=join", alice)
        #expect(members.json["chunk"]?.arrayValue?.count == 2)
        #expect(await client.ask(.GET, "\(base)/joined_members", bob).json["joined"]?.objectValue?.count == 2)
        #expect(
            await client.ask(.GET, "/_matrix/client/v3/joined_rooms", bob).json == ["joined_rooms": [.string(room)]])
        #expect(await client.ask(.POST, "\(base)/leave", bob, [:]).status == 200)
        let refused = await client.ask(.PUT, "\(base)/send/m.room.message/2", bob, ["body": "still here?"])
        #expect(refused.status == 403 && refused.code == "M_FORBIDDEN")
        let unknownDirection = await client.ask(.GET, "\(base)/messages?dir=x", alice)
        #expect(unknownDirection.status == 400 && unknownDirection.code == "M_INVALID_PARAM")
        let noDirection = await client.ask(.GET, "\(base)/messages", alice)
        #expect(noDirection.status == 400 && noDirection.code == "M_MISSING_PARAM")
        await client.server.close()
    }

    @Test("A11: events at the edge of 65,536 bytes, with floats or large integers")
    func events() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice")
        let room =
            await client.ask(.POST, "/_matrix/client/v3/createRoom", alice, [:]).json["room_id"]?.stringValue ?? ""
        func send(_ content: String, _ transaction: String) async -> ClientSession.Answer {
            await client.ask(
                .PUT, "/_matrix/client/v3/rooms/\(room)/send/m.test/\(transaction)", token: alice,
                raw: Array(content.utf8))
        }
        let large = await send(#"{"body":"\#(String(repeating: "x", count: 65_000))"}"#, "1")
        #expect(large.status == 413 && large.code == "M_TOO_LARGE")
        #expect(await send(#"{"body":"\#(String(repeating: "x", count: 60_000))"}"#, "2").status == 200)
        for (index, number) in ["1.5", "9007199254740992", "1e400"].enumerated() {
            let answer = await send(#"{"number":\#(number)}"#, "3\(index)")
            #expect(
                answer.status == 400 && ["M_BAD_JSON", "M_NOT_JSON"].contains(answer.code), "\(number): \(answer.json)")
        }
        #expect(await send(#"{"number":9007199254740991}"#, "4").status == 200)
        await client.server.close()
    }

    @Test("what a listener's clients may learn from other pages is open to them (CORS)")
    func crossOrigin() async throws {
        let client = ClientSession(try await TestServer())
        let preflight = await client.ask(.OPTIONS, "/_matrix/client/v3/sync", nil)
        #expect(preflight.status == 204 || preflight.status == 200)
        let failure = await client.ask(.GET, "/_matrix/client/v3/sync", nil)
        for answer in [preflight, failure] {
            #expect(answer.headers.first(name: "Access-Control-Allow-Origin") == "*")
            #expect(answer.headers.first(name: "Access-Control-Allow-Headers")?.contains("Authorization") == true)
        }
        await client.server.close()
    }

    @Test("filters are kept, the same one under the same ID, and only for their owner")
    func filters() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice"), bob = await client.register("bob")
        let path = "/_matrix/client/v3/user/@alice:localhost/filter"
        let filter: JSON = ["room": ["timeline": ["limit": 3]]]
        let first = await client.ask(.POST, path, alice, filter)
        let id = try #require(first.json["filter_id"]?.stringValue)
        #expect(await client.ask(.POST, path, alice, filter).json["filter_id"]?.stringValue == id)
        #expect(await client.ask(.GET, "\(path)/\(id)", alice).json == filter)
        #expect(await client.ask(.GET, "\(path)/99", alice).code == "M_NOT_FOUND")
        #expect(await client.ask(.GET, "\(path)/\(id)", bob).status == 403)
        #expect(await client.ask(.GET, "/_matrix/client/v3/sync?filter=\(id)", alice).status == 200)
        #expect(await client.ask(.GET, "/_matrix/client/v3/sync?filter=99", alice).status == 400)
        await client.server.close()
    }

    @Test("A26: media are served so that no page can be made of them")
    func media() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice")
        func upload(_ type: String, _ name: String) async -> String {
            let answer = await client.ask(
                .POST, "/_matrix/media/v3/upload?filename=\(name)", token: alice, raw: Array("<script>".utf8),
                headers: [("Content-Type", type)])
            return answer.json["content_uri"]?.stringValue?.split(separator: "/").last.map(String.init) ?? ""
        }
        for (type, disposition) in [
            ("text/html", "attachment"), ("image/svg+xml", "attachment"), ("image/png", "inline"),
            ("application/javascript", "attachment"), ("text/html\u{0};x", "attachment"),
        ] {
            let id = await upload(type, "caf%C3%A9%22.html")
            let answer = await client.ask(.GET, "/_matrix/client/v1/media/download/localhost/\(id)", alice)
            #expect(answer.status == 200)
            let shown = answer.headers.first(name: "Content-Disposition") ?? ""
            #expect(
                shown.hasPrefix(disposition) && shown.contains("filename*=utf-8''caf%C3%A9%22.html"),
                "\(type): \(shown)")
            #expect(answer.headers.first(name: "Content-Security-Policy")?.contains("sandbox") == true)
            #expect(answer.headers.first(name: "X-Content-Type-Options") == "nosniff")
            #expect(answer.headers.first(name: "Cross-Origin-Resource-Policy") == "cross-origin")
        }
        let missing = await client.ask(.GET, "/_matrix/client/v1/media/download/localhost/..%2f..%2fetc", alice)
        #expect(missing.status == 404 && missing.code == "M_NOT_FOUND")
        await client.server.close()
    }
}
