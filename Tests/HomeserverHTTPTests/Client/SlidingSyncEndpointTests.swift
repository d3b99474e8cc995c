import Database
import MatrixCore
import NIOHTTP1
import RoostTestSupport
import Testing

@testable import Homeserver
@testable import HomeserverHTTP

/// Sliding sync as clients ask for it (MSC4186).
@Suite("Client-Server API: sliding sync")
struct SlidingSyncEndpointTests {
    private let base = "/_matrix/client/v3"
    private let path = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"

    private func session() async throws -> ClientSession { ClientSession(try await TestServer()) }

    private func room(_ client: ClientSession, _ token: String, _ options: JSON = [:]) async -> String {
        var body: JSON = ["preset": "public_chat"]
        for (key, value) in options.objectValue ?? [:] { body[key] = value }
        return await client.ask(.POST, "\(base)/createRoom", token, body).json["room_id"]?.stringValue ?? ""
    }

    private func say(_ text: String, _ client: ClientSession, _ token: String, _ room: String) async {
        let answer = await client.ask(
            .PUT, "\(base)/rooms/\(room)/send/m.room.message/\(text)", token,
            ["msgtype": "m.text", "body": .string(text)])
        #expect(answer.status == 200)
    }

    /// A list of all rooms, in the form that the proposal has now.
    private func list(_ last: Int64 = 9, limit: Int64 = 1, filters: JSON? = nil) -> JSON {
        var list: JSON = [
            "range": [0, .integer(last)], "timeline_limit": .integer(limit),
            "required_state": ["include": [["type": "m.room.create", "state_key": ""]]],
        ]
        list["filters"] = filters
        return list
    }

    private func sync(
        _ client: ClientSession, _ token: String, _ body: JSON, pos: String? = nil
    ) async throws -> JSON {
        var body = body
        body["pos"] = pos.map { .string($0) }
        let answer = await client.ask(.POST, path, token, body)
        try #require(answer.status == 200, "\(answer.summary)")
        return answer.json
    }

    private func pos(_ answer: JSON) throws -> String { try #require(answer["pos"]?.stringValue) }

    private func rooms(_ answer: JSON) -> Set<String> { Set(answer["rooms"]?.objectValue?.map(\.key) ?? []) }

    @Test("lists show their ranges, count all rooms, and subscriptions add rooms and wishes of their own")
    func lists() async throws {
        let client = try await session()
        let alice = await client.register("alice")
        var all: [String] = []
        for _ in 0..<4 { all.append(await room(client, alice)) }
        await say("newest", client, alice, all[0])
        let first = try await sync(client, alice, ["lists": ["top": list(1), "second": list(2)]])
        #expect(first["lists"] == ["top": ["count": 4], "second": ["count": 4]])
        #expect(rooms(first) == [all[0], all[3], all[2]])
        #expect(first["rooms"]?[all[0]]?["lists"] == ["top", "second"])
        #expect(first["rooms"]?[all[2]]?["lists"] == ["second"])
        let told = try #require(first["rooms"]?[all[0]])
        #expect(told["initial"] == true && told["membership"] == "join" && told["limited"] == true)
        #expect(told["timeline"]?.arrayValue?.map { $0["content"]?["body"] } == ["newest"])
        #expect(told["required_state"]?.arrayValue?.map { $0["type"] } == ["m.room.create"])
        #expect(told["joined_count"] == 1 && told["num_live"] == 0)
        #expect(told["prev_batch"]?.stringValue != nil && told["bump_stamp"]?.integerValue != nil)
        // Nothing has happened; a wider window shows what it hadn't before; a subscription what no list shows.
        let quiet = try await sync(client, alice, ["lists": ["top": list(1)]], pos: try pos(first))
        #expect(quiet["rooms"] == [:] && quiet["lists"] == ["top": ["count": 4]])
        let subscribed = try await sync(
            client, alice,
            [
                "lists": ["top": list(1)],
                "room_subscriptions": [
                    all[1]: ["timeline_limit": 20, "required_state": [["m.room.member", "$ME"]]],
                    "!none:localhost": list(),
                ],
            ], pos: try pos(quiet))
        #expect(rooms(subscribed) == [all[1]])
        let extra = try #require(subscribed["rooms"]?[all[1]])
        #expect(extra["lists"] == nil && extra["limited"] == false)
        #expect(extra["required_state"]?.arrayValue?.map { $0["type"] } == ["m.room.member"])
        #expect(extra["timeline"]?.arrayValue?.first?["type"] == "m.room.create")
        await client.server.close()
    }

    @Test("a list's filters choose rooms, and an invitation comes in its stripped form")
    func filters() async throws {
        let client = try await session()
        let alice = await client.register("alice"), bob = await client.register("bob")
        let plain = await room(client, alice)
        let space = await room(client, alice, ["creation_content": ["type": "m.space"]])
        let encryption: JSON = [["type": "m.room.encryption", "content": ["algorithm": "m.megolm.v1.aes-sha2"]]]
        let secret = await room(client, alice, ["initial_state": encryption])
        let invited = await room(client, bob, ["name": "Bob's", "invite": ["@alice:localhost"]])
        let own = "\(base)/user/@alice:localhost"
        #expect(await client.ask(.PUT, "\(own)/rooms/\(plain)/tags/m.favourite", alice, [:]).status == 200)
        let direct: JSON = ["@bob:localhost": [.string(secret)]]
        #expect(await client.ask(.PUT, "\(own)/account_data/m.direct", alice, direct).status == 200)
        let child: JSON = ["via": ["localhost"]]
        #expect(
            await client.ask(.PUT, "\(base)/rooms/\(space)/state/m.space.child/\(plain)", alice, child).status == 200)
        for (filters, expected) in [
            ([:], [plain, space, secret, invited]), (["is_invited": true], [invited]), (["is_invite": true], [invited]),
            (["is_dm": true], [secret]), (["is_dm": false, "is_invited": false], [plain, space]),
            (["is_encrypted": true], [secret]), (["room_types": ["m.space"]], [space]),
            (["room_types": [nil], "is_invited": false], [plain, secret]),
            (["not_room_types": ["m.space", nil]], []), (["tags": ["m.favourite"]], [plain]),
            (["not_tags": ["m.favourite"], "tags": ["m.favourite"]], []), (["spaces": [.string(space)]], [plain]),
            (["spaces": [.string(plain)]], []),
        ] as [(JSON, Set<String>)] {
            let answer = try await sync(client, alice, ["lists": ["one": list(filters: filters)]])
            #expect(rooms(answer) == expected, "\(filters)")
            #expect(answer["lists"]?["one"]?["count"] == .integer(Int64(expected.count)), "\(filters)")
        }
        let answer = try await sync(client, alice, ["lists": ["all": list()]])
        let told = try #require(answer["rooms"]?[invited])
        #expect(told["membership"] == "invite" && told["timeline"] == nil && told["required_state"] == nil)
        let stripped = told["stripped_state"]?.arrayValue ?? []
        #expect(stripped.contains { $0["type"] == "m.room.name" && $0["content"] == ["name": "Bob's"] })
        #expect(stripped.allSatisfy { $0["event_id"] == nil && $0["origin_server_ts"] == nil })
        #expect(answer["rooms"]?[secret]?["is_dm"] == true)
        await client.server.close()
    }

    @Test("a position is the device's own, once for each answer, and ends; others are unknown")
    func positions() async throws {
        let client = try await session()
        let alice = await client.register("alice"), bob = await client.register("bob")
        let login: JSON = [
            "type": "m.login.password", "password": "secret", "identifier": ["type": "m.id.user", "user": "alice"],
        ]
        let second = await client.ask(.POST, "\(base)/login", nil, login).json["access_token"]?.stringValue ?? ""
        let room = await room(client, alice)
        let body: JSON = ["lists": ["all": list()], "conn_id": "main"]
        func refused(_ token: String, _ pos: String) async {
            for target in [path, "\(path)?pos=\(pos)"] {
                var body = body
                if target == path { body["pos"] = .string(pos) }
                let answer = await client.ask(.POST, target, token, body)
                #expect(answer.status == 400 && answer.code == "M_UNKNOWN_POS", "\(answer.summary)")
            }
        }
        let first = try pos(try await sync(client, alice, body))
        await say("one", client, alice, room)
        // In the query and in the body it is the same; a lost answer is given again.
        let again = await client.ask(.POST, "\(path)?pos=\(first)&timeout=0", alice, body).json
        let answer = try await sync(client, alice, body, pos: first)
        #expect(again["rooms"]?[room]?["timeline"] == answer["rooms"]?[room]?["timeline"])
        await say("two", client, alice, room)
        let next = try pos(try await sync(client, alice, body, pos: try pos(answer)))
        _ = try await sync(client, alice, body, pos: next)
        await refused(alice, first)
        await refused(alice, try pos(again))
        for token in [bob, second] { await refused(token, next) }
        for wrong in ["", "x", "s1-a-1-b-2", "ss1-a-1-2-3-b-4-5", String(next.dropLast(40)) + "9"] {
            await refused(alice, wrong)
        }
        // The same name for a connection on another device is another connection.
        let other = try pos(try await sync(client, second, body))
        await say("three", client, alice, room)
        #expect(rooms(try await sync(client, alice, body, pos: next)) == [room])
        #expect(rooms(try await sync(client, second, body, pos: other)) == [room])
        // One that begins anew under the name ends the one before.
        _ = try await sync(client, alice, body)
        await refused(alice, next)
        client.server.clock.advance(by: 31 * 86_400_000)
        _ = try await sync(client, bob, body)
        await refused(second, other)
        await client.server.close()
    }

    @Test("a connection goes on after a restart of the server, with what happened meanwhile and no more")
    func restart() async throws {
        var client = try await session()
        let directory = client.server.directory, clock = client.server.clock
        let alice = await client.register("alice")
        let quiet = await room(client, alice), lively = await room(client, alice)
        let body: JSON = ["lists": ["all": list(limit: 5)], "extensions": ["account_data": ["enabled": true]]]
        var answer = try await sync(client, alice, body)
        #expect(rooms(answer) == [quiet, lively])
        for text in ["one", "two"] {
            await client.server.close()
            client = ClientSession(try await TestServer(directory: directory, clock: clock))
            await say(text, client, alice, lively)
            answer = try await sync(client, alice, body, pos: try pos(answer))
            #expect(rooms(answer) == [lively])
            let told = answer["rooms"]?[lively]
            #expect(told?["timeline"]?.arrayValue?.map { $0["content"]?["body"]?.stringValue } == [text])
            #expect(told?["initial"] == nil && told?["required_state"] == [] && told?["num_live"] == 1)
            #expect(answer["extensions"]?["account_data"]?["global"] == [])
        }
        await client.server.close()
    }

    @Test("each extension has its form, tells its beginning, and then what is new")
    func extensions() async throws {
        let client = try await session()
        let alice = await client.register("alice"), bob = await client.register("bob")
        let room = await room(client, alice)
        #expect(await client.ask(.POST, "\(base)/join/\(room)", bob, [:]).status == 200)
        let names = [
            "to_device", "e2ee", "account_data", "receipts", "typing", "org.matrix.msc4354.sticky_events",
            "org.matrix.msc4262.profiles", "io.element.msc4308.thread_subscriptions",
        ]
        let enabled = JSON.object(JSONObject(names.map { ($0, ["enabled": true] as JSON) }))
        let body: JSON = ["lists": ["all": list()], "extensions": enabled]
        // Nothing is told that isn't asked for.
        let off = JSON.object(JSONObject(names.map { ($0, ["enabled": false] as JSON) }))
        for extensions in [off, [:]] {
            let bare = try await sync(client, alice, ["lists": ["all": list()], "extensions": extensions])
            #expect(bare["extensions"] == [:])
        }
        let first = try await sync(client, alice, body)
        let begun = try #require(first["extensions"])
        #expect(begun["to_device"]?["events"] == [] && begun["to_device"]?["next_batch"]?.stringValue != nil)
        #expect(begun["e2ee"]?["device_one_time_keys_count"] == ["signed_curve25519": 0])
        #expect(begun["e2ee"]?["device_unused_fallback_key_types"] == [])
        #expect(begun["account_data"]?["global"]?.arrayValue?.map { $0["type"] } == ["m.push_rules"])
        for name in names where name != "org.matrix.msc4262.profiles" && names.firstIndex(of: name)! > 2 {
            #expect(begun[name] == nil, "\(name)")
        }
        let event =
            await client.ask(
                .PUT, "\(base)/rooms/\(room)/send/m.rtc.member/1?org.matrix.msc4354.sticky_duration_ms=60000", bob, [:]
            ).json["event_id"]?.stringValue ?? ""
        let thread = "/_matrix/client/unstable/io.element.msc4306/rooms/\(room)/thread/\(event)/subscription"
        for (method, target, token, content) in [
            (.PUT, "\(base)/sendToDevice/org.example/1", bob, ["messages": ["@alice:localhost": ["*": ["a": 1]]]]),
            (.PUT, "\(base)/user/@alice:localhost/account_data/org.example", alice, ["a": 2]),
            (.PUT, "\(base)/user/@alice:localhost/rooms/\(room)/tags/u.tag", alice, [:]),
            (.POST, "\(base)/rooms/\(room)/receipt/m.read/\(event)", bob, [:]),
            (.PUT, "\(base)/rooms/\(room)/typing/@bob:localhost", bob, ["typing": true, "timeout": 30_000]),
            (.PUT, "\(base)/profile/@bob:localhost/org.example.status", bob, ["org.example.status": "at sea"]),
            (.PUT, thread, alice, [:]),
        ] as [(HTTPMethod, String, String, JSON)] {
            let answer = await client.ask(method, target, token, content)
            #expect(answer.status == 200, "\(target): \(answer.summary)")
        }
        let second = try await sync(client, alice, body, pos: try pos(first))
        let told = try #require(second["extensions"])
        #expect(
            told["to_device"]?["events"] == [["type": "org.example", "sender": "@bob:localhost", "content": ["a": 1]]])
        #expect(told["account_data"]?["global"] == [["type": "org.example", "content": ["a": 2]]])
        #expect(told["account_data"]?["rooms"]?[room]?.arrayValue?.map { $0["type"] } == ["m.tag"])
        let receipt = told["receipts"]?["rooms"]?[room]
        #expect(receipt?["type"] == "m.receipt")
        #expect(receipt?["content"]?[event]?["m.read"]?["@bob:localhost"]?["ts"]?.integerValue != nil)
        #expect(
            told["typing"]?["rooms"] == [room: ["type": "m.typing", "content": ["user_ids": ["@bob:localhost"]]]])
        let sticky = told["org.matrix.msc4354.sticky_events"]?["rooms"]?[room]?["events"]?.arrayValue ?? []
        #expect(sticky.map { $0["event_id"]?.stringValue } == [event])
        #expect(
            told["org.matrix.msc4262.profiles"]?["users"]
                == ["@bob:localhost": ["updated": ["org.example.status": "at sea"]]])
        let threads = told["io.element.msc4308.thread_subscriptions"]
        #expect(threads?["subscribed"]?[room]?[event]?["automatic"] == false)
        #expect(threads?["subscribed"]?[room]?[event]?["bump_stamp"]?.integerValue != nil)
        // Messages to the device are acknowledged by the token that came with them.
        var acknowledging = body
        acknowledging["extensions"]?["to_device"]?["since"] = told["to_device"]?["next_batch"]
        let third = try await sync(client, alice, acknowledging, pos: try pos(second))["extensions"]
        #expect(third?["to_device"]?["events"] == [])
        #expect(third?["account_data"] == ["global": [], "rooms": [:]])
        for name in names where names.firstIndex(of: name)! > 2 { #expect(third?[name] == nil, "\(name)") }
        await client.server.close()
    }

    @Test("an extension can be confined to lists and rooms")
    func scopes() async throws {
        let client = try await session()
        let alice = await client.register("alice")
        let listed = await room(client, alice), subscribed = await room(client, alice)
        for room in [listed, subscribed] {
            let tag = "\(base)/user/@alice:localhost/rooms/\(room)/tags/u.x"
            #expect(await client.ask(.PUT, tag, alice, [:]).status == 200)
        }
        await say("newest", client, alice, listed)
        for (scope, expected) in [
            ([:], [listed, subscribed]), (["lists": []], [subscribed]), (["rooms": []], [listed]),
            (["lists": ["top"], "rooms": []], [listed]), (["lists": ["other"]], [subscribed]),
            (["lists": ["*"], "rooms": ["*"]], [listed, subscribed]), (["lists": [], "rooms": [.string(listed)]], []),
            (["lists": [], "rooms": [.string(subscribed)]], [subscribed]),
        ] as [(JSON, Set<String>)] {
            var accountData = scope
            accountData["enabled"] = true
            let answer = try await sync(
                client, alice,
                [
                    "lists": ["top": list(0)], "room_subscriptions": [subscribed: list()],
                    "extensions": ["account_data": accountData],
                ])
            let told = answer["extensions"]?["account_data"]?["rooms"]?.objectValue?.map(\.key) ?? []
            #expect(Set(told) == expected, "\(scope)")
        }
        await client.server.close()
    }

    @Test("what isn't a request is refused, with the status and code for it")
    func refusals() async throws {
        let client = try await session()
        let alice = await client.register("alice")
        func many(_ count: Int) -> JSON { .object(JSONObject((0..<count).map { ("!\($0):x", list()) })) }
        for (raw, status, code) in [
            ("", 400, "M_NOT_JSON"), ("{", 400, "M_NOT_JSON"), ("[]", 400, "M_BAD_JSON"), ("7", 400, "M_BAD_JSON"),
            (#"{"lists":[]}"#, 400, "M_BAD_JSON"), (#"{"lists":{"a":[]}}"#, 400, "M_BAD_JSON"),
            (#"{"lists":{"":{}}}"#, 400, "M_INVALID_PARAM"),
            (#"{"lists":{"a":{"timeline_limit":"1"}}}"#, 400, "M_BAD_JSON"),
            (#"{"lists":{"a":{"timeline_limit":-1}}}"#, 400, "M_INVALID_PARAM"),
            (#"{"lists":{"a":{"range":[1]}}}"#, 400, "M_INVALID_PARAM"),
            (#"{"lists":{"a":{"range":[-1,1]}}}"#, 400, "M_INVALID_PARAM"),
            (#"{"lists":{"a":{"range":[2,1]}}}"#, 400, "M_INVALID_PARAM"),
            (#"{"lists":{"a":{"ranges":[[0,1],7]}}}"#, 400, "M_INVALID_PARAM"),
            (#"{"lists":{"a":{"required_state":7}}}"#, 400, "M_BAD_JSON"),
            (#"{"lists":{"a":{"required_state":{"include":{}}}}}"#, 400, "M_BAD_JSON"),
            (#"{"lists":{"a":{"required_state":{"include":[{"type":5}]}}}}"#, 400, "M_BAD_JSON"),
            (#"{"lists":{"a":{"filters":{"is_dm":"yes"}}}}"#, 400, "M_BAD_JSON"),
            (#"{"lists":{"a":{"filters":{"tags":[1]}}}}"#, 400, "M_BAD_JSON"),
            (#"{"room_subscriptions":{"room":{}}}"#, 400, "M_INVALID_PARAM"),
            (#"{"extensions":{"typing":true}}"#, 400, "M_BAD_JSON"),
            (#"{"extensions":{"typing":{"enabled":1}}}"#, 400, "M_BAD_JSON"),
            (#"{"extensions":{"receipts":{"enabled":true,"rooms":"all"}}}"#, 400, "M_BAD_JSON"),
            (#"{"extensions":{"org.matrix.msc4262.profiles":{"enabled":true,"fields":7}}}"#, 400, "M_BAD_JSON"),
            (
                #"{"extensions":{"io.element.msc4308.thread_subscriptions":{"enabled":true,"limit":0}}}"#, 400,
                "M_INVALID_PARAM"
            ),
            (#"{"timeout":-1}"#, 400, "M_INVALID_PARAM"), (#"{"timeout":"soon"}"#, 400, "M_BAD_JSON"),
            (#"{"set_presence":"asleep"}"#, 400, "M_INVALID_PARAM"), (#"{"conn_id":5}"#, 400, "M_BAD_JSON"),
            (#"{"pos":5}"#, 400, "M_BAD_JSON"),
            (#"{"x":"\#(String(repeating: "x", count: 524_288))"}"#, 413, "M_TOO_LARGE"),
        ] as [(String, Int, String)] {
            let answer = await client.ask(.POST, path, token: alice, raw: Array(raw.utf8))
            #expect(answer.status == status && answer.code == code, "\(raw.prefix(80)): \(answer.summary)")
        }
        for name in ["lists", "room_subscriptions"] {
            #expect(await client.ask(.POST, path, alice, [name: many(100)]).status == 200, "\(name)")
            #expect(await client.ask(.POST, path, alice, [name: many(101)]).code == "M_INVALID_PARAM", "\(name)")
        }
        for query in ["timeout=x", "timeout=-1", "set_presence=asleep"] {
            #expect(await client.ask(.POST, "\(path)?\(query)", alice, [:]).code == "M_INVALID_PARAM", "\(query)")
        }
        let unsigned = await client.ask(.POST, path, nil, [:])
        #expect(unsigned.status == 401 && unsigned.code == "M_MISSING_TOKEN")
        let wrongMethod = await client.ask(.GET, path, alice)
        #expect(wrongMethod.status == 405 && wrongMethod.code == "M_UNRECOGNIZED")
        // An empty request is one.
        let empty = await client.ask(.POST, path, alice, [:])
        #expect(empty.json["rooms"] == [:] && empty.json["pos"]?.stringValue != nil)
        await client.server.close()
    }

    /// MSC4186, "Connections": “A `pos` token can be used in `/messages` and `/relations` APIs, in the same way as a `next_batch`
    /// from `/v3/sync` response.”
    @Test("tokens of both ways of syncing are places in a room's history and among an event's children")
    func tokensElsewhere() async throws {
        let client = try await session()
        let alice = await client.register("alice")
        let room = await room(client, alice), other = await self.room(client, alice)
        let root =
            await client.ask(.PUT, "\(base)/rooms/\(room)/send/m.room.message/root", alice, ["body": "root"])
            .json["event_id"]?.stringValue ?? ""
        func reply(_ text: String) async {
            let relation: JSON = ["rel_type": "m.thread", "event_id": .string(root)]
            let content: JSON = ["msgtype": "m.text", "body": .string(text), "m.relates_to": relation]
            #expect(
                await client.ask(.PUT, "\(base)/rooms/\(room)/send/m.room.message/\(text)", alice, content).status
                    == 200)
        }
        await reply("one")
        await reply("two")
        // What comes later in another room moves the token on, and not the place.
        await say("elsewhere", client, alice, other)
        let sliding = try pos(try await sync(client, alice, ["lists": ["all": list()]]))
        let plain = await client.ask(.GET, "\(base)/sync", alice).json["next_batch"]?.stringValue ?? ""
        await reply("three")
        let relations = "/_matrix/client/v1/rooms/\(room)/relations/\(root)"
        func bodies(_ target: String) async -> [String?] {
            let answer = await client.ask(.GET, target, alice)
            #expect(answer.status == 200, "\(target): \(answer.summary)")
            return answer.json["chunk"]?.arrayValue?.map { $0["content"]?["body"]?.stringValue } ?? []
        }
        for token in [sliding, plain] {
            #expect(await bodies("\(relations)?from=\(token)") == ["two", "one"])
            #expect(await bodies("\(relations)?from=\(token)&dir=f") == ["three"])
            #expect(await bodies("\(relations)?to=\(token)") == ["three"])
            #expect(await bodies("\(relations)?to=\(token)&dir=f") == ["one", "two"])
            #expect(await bodies("\(relations)?from=\(token)&recurse=true") == ["two", "one"])
            #expect(await bodies("\(base)/rooms/\(room)/messages?dir=b&limit=2&from=\(token)") == ["two", "one"])
            #expect(await bodies("\(base)/rooms/\(room)/messages?dir=f&from=\(token)") == ["three"])
        }
        for target in ["\(relations)?from=x", "\(relations)?to=s2", "\(base)/rooms/\(room)/messages?dir=b&from=s1"] {
            let answer = await client.ask(.GET, target, alice)
            #expect(answer.status == 400 && answer.code == "M_INVALID_PARAM", "\(target)")
        }
        await client.server.close()
    }
}
