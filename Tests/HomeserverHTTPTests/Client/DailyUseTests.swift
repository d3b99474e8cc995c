import MatrixCore
import NIOHTTP1
import RoostTestSupport
import Testing

@testable import Homeserver
@testable import HomeserverHTTP

/// What newer versions of the specification added to rooms and events.
@Suite("Rooms and events in daily use")
struct DailyUseTests {
    private let client: ClientSession
    private let base = "/_matrix/client/v3"
    private let alice: String
    private let bob: String

    init() async throws {
        client = ClientSession(try await TestServer())
        alice = await client.register("alice")
        bob = await client.register("bob")
    }

    private func room(_ options: JSON = ["preset": "public_chat"]) async -> String {
        await client.ask(.POST, "\(base)/createRoom", alice, options).json["room_id"]?.stringValue ?? ""
    }

    private func send(_ content: JSON, in room: String, type: String = "m.room.message", id: String) async -> String {
        client.server.clock.advance(by: 1_000)
        return await client.ask(.PUT, "\(base)/rooms/\(room)/send/\(type)/\(id)", alice, content).json["event_id"]?
            .stringValue ?? ""
    }

    @Test("the event nearest to a time is found in both directions")
    func nearest() async throws {
        let room = await room()
        let start = client.server.clock.surroundings.now()
        var events: [String] = []
        for number in 0..<3 { events.append(await send(["body": "x"], in: room, id: "\(number)")) }
        let path = "/_matrix/client/v1/rooms/\(room)/timestamp_to_event"
        func found(_ time: Int64, _ direction: String) async -> String? {
            await client.ask(.GET, "\(path)?ts=\(start + time)&dir=\(direction)", alice).json["event_id"]?.stringValue
        }
        #expect(await found(1_500, "f") == events[1])
        #expect(await found(2_500, "b") == events[1])
        #expect(await found(9_000, "f") == nil)
        #expect(await found(9_000, "b") == events[2])
        await client.server.close()
    }

    @Test("children of children come when they are asked for")
    func recursion() async throws {
        let room = await room()
        let root = await send(["body": "root"], in: room, id: "1")
        let reply = await send(
            ["body": "reply", "m.relates_to": ["rel_type": "m.thread", "event_id": .string(root)]], in: room, id: "2")
        let reaction = await send(
            ["m.relates_to": ["rel_type": "m.annotation", "event_id": .string(reply), "key": "👍"]], in: room,
            type: "m.reaction", id: "3")
        func children(_ query: String) async -> [String?] {
            let path = "/_matrix/client/v1/rooms/\(room)/relations/\(root)?\(query)"
            return await client.ask(.GET, path, alice).json["chunk"]?.arrayValue?.map { $0["event_id"]?.stringValue }
                ?? []
        }
        #expect(await children("") == [reply])
        #expect(await children("recurse=true") == [reaction, reply])
        #expect(await children("recurse=true&dir=f") == [reply, reaction])
        await client.server.close()
    }

    @Test("an event tells what its reader was in the room when it happened")
    func membershipAtEvent() async throws {
        let room = await room()
        let before = await send(["body": "before"], in: room, id: "1")
        _ = await client.ask(.POST, "\(base)/join/\(room)", bob)
        let after = await send(["body": "after"], in: room, id: "2")
        for (event, membership) in [(before, "leave"), (after, "join")] {
            let answer = await client.ask(.GET, "\(base)/rooms/\(room)/event/\(event)", bob)
            #expect(answer.json["unsigned"]?["membership"]?.stringValue == membership)
            let context = await client.ask(.GET, "\(base)/rooms/\(room)/context/\(event)", bob).json["event"]
            #expect(context?["unsigned"]?["membership"]?.stringValue == membership)
        }
        await client.server.close()
    }

    @Test("a room that one may enter, or is invited to, shows a summary of itself")
    func summary() async throws {
        let open = await room(["preset": "public_chat", "name": "Open", "room_alias_name": "open"])
        let closed = await room(["preset": "private_chat", "name": "Closed"])
        func summary(_ room: String) async -> ClientSession.Answer {
            await client.ask(.GET, "/_matrix/client/v1/room_summary/\(room)", bob)
        }
        for name in [open, "%23open:localhost"] {
            let answer = await summary(name)
            #expect(answer.json["name"] == "Open" && answer.json["membership"] == "leave")
            #expect(answer.json["room_version"] == "12" && answer.json["join_rule"] == "public")
        }
        #expect(await summary(closed).status == 404)
        _ = await client.ask(.POST, "\(base)/rooms/\(closed)/invite", alice, ["user_id": "@bob:localhost"])
        #expect(await summary(closed).json["membership"] == "invite")
        await client.server.close()
    }

    @Test("an invitation shows the create event of its room")
    func invitation() async throws {
        let room = await room(["preset": "private_chat", "invite": ["@bob:localhost"]])
        let invite = await client.ask(.GET, "\(base)/sync", bob).json["rooms"]?["invite"]?[room]?["invite_state"]
        let types = invite?["events"]?.arrayValue?.compactMap { $0["type"]?.stringValue } ?? []
        #expect(types.contains("m.room.create") && types.contains("m.room.member"))
        await client.server.close()
    }

    @Test("a redaction may be sent like any other event")
    func redaction() async throws {
        for version in ["10", "12"] {
            let room = await room(["preset": "public_chat", "room_version": .string(version)])
            let event = await send(["body": "a slip"], in: room, id: "1")
            let answer = await client.ask(
                .PUT, "\(base)/rooms/\(room)/send/m.room.redaction/2", alice, ["redacts": .string(event)])
            #expect(answer.status == 200)
            let shown = await client.ask(.GET, "\(base)/rooms/\(room)/event/\(event)", alice).json
            let because = shown["unsigned"]?["redacted_because"]
            #expect(shown["content"]?["body"] == nil, "\(version)")
            // Clients of all ages find what was redacted.
            let redaction = answer.json["event_id"]?.stringValue ?? ""
            let itself = await client.ask(.GET, "\(base)/rooms/\(room)/event/\(redaction)", alice).json
            for told in [because, itself] {
                #expect(
                    told?["redacts"] == .string(event) && told?["content"]?["redacts"] == .string(event), "\(version)")
            }
        }
        await client.server.close()
    }

    @Test("who wants no invitations gets none, by any way")
    func blockedInvitations() async throws {
        let room = await room(["preset": "private_chat"]), before = await self.room(["preset": "private_chat"])
        _ = await client.ask(.POST, "\(base)/rooms/\(before)/invite", alice, ["user_id": "@bob:localhost"])
        let data = "\(base)/user/@bob:localhost/account_data/m.invite_permission_config"
        _ = await client.ask(.PUT, data, bob, ["default_action": "block"])
        let ways: [(HTTPMethod, String, JSON)] = [
            (.POST, "\(base)/rooms/\(room)/invite", ["user_id": "@bob:localhost"]),
            (.POST, "\(base)/createRoom", ["invite": ["@bob:localhost"]]),
            (.PUT, "\(base)/rooms/\(room)/state/m.room.member/@bob:localhost", ["membership": "invite"]),
        ]
        for (method, path, body) in ways {
            let answer = await client.ask(method, path, alice, body)
            #expect(answer.status == 403 && answer.code == "M_INVITE_BLOCKED", "\(path): \(answer.summary)")
        }
        // One from before isn't shown, and is again when the user wants invitations.
        #expect(await client.ask(.GET, "\(base)/sync", bob).json["rooms"]?["invite"] == nil)
        _ = await client.ask(.PUT, data, bob, [:])
        #expect(await client.ask(.GET, "\(base)/sync", bob).json["rooms"]?["invite"]?[before] != nil)
        for (method, path, body) in ways.prefix(2) {
            #expect(await client.ask(method, path, alice, body).status == 200)
        }
        await client.server.close()
    }

    @Test("members are filtered by what they are, or aren't; both together are an “or”")
    func members() async throws {
        let room = await room(["preset": "private_chat", "invite": ["@bob:localhost"]])
        func members(_ query: String) async -> Set<String?> {
            let answer = await client.ask(.GET, "\(base)/rooms/\(room)/members?\(query)", alice)
            return Set(answer.json["chunk"]?.arrayValue?.map { $0["state_key"]?.stringValue } ?? [])
        }
        let host = "@alice:localhost", guest = "@bob:localhost"
        #expect(await members("") == [host, guest])
        #expect(await members("membership=join") == [host])
        #expect(await members("not_membership=join") == [guest])
        #expect(await members("membership=invite&not_membership=join") == [guest])
        #expect(await members("membership=join&not_membership=join") == [host, guest])
        await client.server.close()
    }

    @Test("filters of single rooms leave out what they say: types, senders and the room itself")
    func filters() async throws {
        let room = await room()
        let event = await send(["body": "one"], in: room, id: "1")
        _ = await send(["body": "two"], in: room, type: "org.example.other", id: "2")
        func encoded(_ filter: JSON) -> String {
            GeneratedInputScene.encoded(String(decoding: filter.encoded(), as: UTF8.self))
        }
        func chunk(_ filter: JSON) async -> Int? {
            let path = "\(base)/rooms/\(room)/messages?dir=b&limit=50&filter=\(encoded(filter))"
            return await client.ask(.GET, path, alice).json["chunk"]?.arrayValue?.count
        }
        #expect(await chunk(["types": ["org.example.*"]]) == 1)
        #expect(await chunk(["rooms": [.string(room)], "types": ["m.room.message"]]) == 1)
        #expect(await chunk(["not_rooms": [.string(room)]]) == 0)
        #expect(await chunk(["rooms": []]) == 0)
        let filter = encoded(["types": ["org.example.other", "m.room.create"]])
        let context = await client.ask(.GET, "\(base)/rooms/\(room)/context/\(event)?filter=\(filter)", alice).json
        #expect(context["event"]?["event_id"]?.stringValue == event)
        #expect(context["events_after"]?.arrayValue?.map { $0["type"] } == ["org.example.other"])
        #expect(context["state"]?.arrayValue?.map { $0["type"] } == ["m.room.create"])
        await client.server.close()
    }

    @Test("a threaded receipt is for an event of that thread")
    func threadedReceipts() async throws {
        let room = await room()
        let root = await send(["body": "root"], in: room, id: "1"),
            other = await send(["body": "other"], in: room, id: "2")
        let reply = await send(
            ["body": "reply", "m.relates_to": ["rel_type": "m.thread", "event_id": .string(root)]], in: room, id: "3")
        let edit = await send(
            ["body": "* reply", "m.relates_to": ["rel_type": "m.replace", "event_id": .string(reply)]], in: room,
            id: "4")
        for (event, thread, isRight) in [
            (root, "main", true), (root, root, true), (other, "main", true), (reply, root, true), (edit, root, true),
            (reply, "main", false), (edit, "main", false), (other, root, false), (reply, other, false),
            ("$unknown", root, true),
        ] {
            let answer = await client.ask(
                .POST, "\(base)/rooms/\(room)/receipt/m.read/\(event)", alice, ["thread_id": .string(thread)])
            #expect(answer.status == (isRight ? 200 : 400), "\(event) \(thread)")
            if !isRight { #expect(answer.code == "M_INVALID_PARAM") }
        }
        await client.server.close()
    }

    @Test("the names of a room are aliases that point to it")
    func canonicalAlias() async throws {
        let room = await room(["preset": "public_chat", "room_alias_name": "here"])
        _ = await self.room(["preset": "public_chat", "room_alias_name": "elsewhere"])
        func set(_ content: JSON) async -> String? {
            let answer = await client.ask(.PUT, "\(base)/rooms/\(room)/state/m.room.canonical_alias", alice, content)
            return answer.status == 200 ? nil : answer.code
        }
        #expect(await set(["alias": "#here:localhost", "alt_aliases": ["#here:localhost"]]) == nil)
        #expect(await set(["alias": "#elsewhere:localhost"]) == "M_BAD_ALIAS")
        #expect(await set(["alt_aliases": ["#nowhere:localhost"]]) == "M_BAD_ALIAS")
        #expect(await set(["alias": "#here:elsewhere.example"]) == "M_BAD_ALIAS")
        #expect(await set(["alias": "here"]) == "M_INVALID_PARAM")
        #expect(await set(["alias": 7]) == "M_INVALID_PARAM")
        #expect(await set(["alt_aliases": "#here:localhost"]) == "M_INVALID_PARAM")
        // What has gone meanwhile doesn't keep anybody from changing the rest.
        _ = await client.ask(.DELETE, "\(base)/directory/room/%23here:localhost", alice)
        #expect(await set(["alias": "#here:localhost", "own": true]) == nil)
        #expect(await set([:]) == nil)
        await client.server.close()
    }

    @Test("two people see which rooms they share")
    func mutualRooms() async throws {
        let shared = await room(), _ = await room()
        _ = await client.ask(.POST, "\(base)/join/\(shared)", bob)
        let answer = await client.ask(.GET, "/_matrix/client/v1/mutual_rooms?user_id=@bob:localhost", alice)
        #expect(answer.json["joined"] == [.string(shared)])
        await client.server.close()
    }
}
