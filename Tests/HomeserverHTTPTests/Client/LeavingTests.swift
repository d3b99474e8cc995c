import MatrixCore
import NIOHTTP1
import RoostTestSupport
import Testing

@testable import Homeserver
@testable import HomeserverHTTP

/// A20 on every path that reads: what was said and set before somebody came, and after somebody left, shows nowhere.
@Suite("What is hidden from those who left, or came later")
struct LeavingTests {
    private let client: ClientSession
    private let base = "/_matrix/client/v3"
    private let alice: String
    private let bob: String

    init() async throws {
        client = ClientSession(try await TestServer())
        alice = await client.register("alice")
        bob = await client.register("bob")
    }

    private func event(_ answer: ClientSession.Answer) -> String { answer.json["event_id"]?.stringValue ?? "" }

    private func send(
        _ text: String, in room: String, relation: JSON? = nil, type: String = "m.room.message", id: String
    ) async -> String {
        client.server.clock.advance(by: 10)
        var content: JSON = [
            "msgtype": "m.text", "body": .string(text), "m.new_content": ["body": .string(text)],
        ]
        if let relation { content["m.relates_to"] = relation }
        return event(await client.ask(.PUT, "\(base)/rooms/\(room)/send/\(type)/\(id)", alice, content))
    }

    private func relation(_ type: String, _ event: String) -> JSON {
        ["rel_type": .string(type), "event_id": .string(event)]
    }

    /// All that can be asked about a room, and the body of what isn't a GET.
    private func readings(of room: String, _ events: [String], since: String) -> [(HTTPMethod, String, JSON?)] {
        let rooms = "\(base)/rooms/\(room)"
        let all = #"{"room":{"include_leave":true,"timeline":{"limit":100}}}"#
        let filter = GeneratedInputScene.encoded(all)
        var readings: [(HTTPMethod, String, JSON?)] = [
            (.GET, "\(base)/sync?filter=\(filter)", nil),
            (.GET, "\(base)/sync?filter=\(filter)&full_state=true&since=\(since)", nil),
            (.GET, "\(base)/sync?filter=\(filter)&since=\(since)", nil),
            (.GET, "\(base)/sync?filter=\(filter)&use_state_after=true", nil),
            (.GET, "\(base)/initialSync?archived=true&limit=100", nil),
            (.GET, "\(base)/events?from=\(since)&timeout=0&room_id=\(room)", nil),
            (.GET, "\(base)/notifications", nil),
            (.GET, "\(rooms)/messages?dir=b&limit=100", nil), (.GET, "\(rooms)/messages?dir=f&limit=100", nil),
            (.GET, "\(rooms)/messages?dir=b&limit=100&from=\(since)", nil),
            (.GET, "\(rooms)/initialSync?limit=100", nil), (.GET, "\(rooms)/state", nil),
            (.GET, "\(rooms)/state/m.room.topic", nil), (.GET, "\(rooms)/state/m.room.topic?format=event", nil),
            (.GET, "\(rooms)/members", nil), (.GET, "\(rooms)/joined_members", nil), (.GET, "\(rooms)/aliases", nil),
            (.GET, "/_matrix/client/v1/rooms/\(room)/threads", nil),
            (.GET, "/_matrix/client/v1/rooms/\(room)/timestamp_to_event?ts=0&dir=f", nil),
            (.GET, "/_matrix/client/v1/rooms/\(room)/timestamp_to_event?ts=9007199254740991&dir=b", nil),
            (.GET, "/_matrix/client/v1/rooms/\(room)/hierarchy", nil),
            (.GET, "/_matrix/client/v1/room_summary/\(room)", nil),
            (
                .POST, "\(base)/search",
                [
                    "search_categories": [
                        "room_events": ["search_term": "tea", "event_context": [:], "include_state": true]
                    ]
                ]
            ),
            (.POST, "\(base)/search", ["search_categories": ["room_events": ["search_term": "hidden"]]]),
        ]
        for event in events {
            readings += [
                (.GET, "\(rooms)/event/\(event)", nil), (.GET, "\(base)/events/\(event)", nil),
                (.GET, "\(rooms)/context/\(event)?limit=100", nil),
                (.GET, "/_matrix/client/v1/rooms/\(room)/relations/\(event)", nil),
                (.GET, "/_matrix/client/v1/rooms/\(room)/relations/\(event)?recurse=true", nil),
            ]
        }
        return readings
    }

    /// Has bob read everything, and looks for what he may not see.
    private func expectNothing(
        of secret: String, in room: String, _ events: [String], since: String, sees: String
    ) async {
        var sawSomething = false
        for (method, target, body) in readings(of: room, events, since: since) {
            let answer = await client.ask(method, target, bob, body)
            let text = String(decoding: answer.bytes, as: UTF8.self)
            // A search tells the words that were searched for.
            let isSearchForIt =
                target.hasSuffix("/search") && String(decoding: body?.encoded() ?? [], as: UTF8.self).contains("hidden")
            if isSearchForIt {
                let found = answer.json["search_categories"]?["room_events"]
                #expect(found?["count"] == 0 && found?["results"] == [], "\(target): \(answer.summary)")
            } else {
                #expect(!text.contains(secret), "\(method) \(target) shows it: \(text)")
            }
            if text.contains(sees) { sawSomething = true }
        }
        #expect(sawSomething, "what may be seen shows somewhere")
    }

    @Test("A20: after leaving nothing new shows: no message, state, edit, thread, reaction, name or topic, on any path")
    func afterLeaving() async throws {
        let room =
            await client.ask(
                .POST, "\(base)/createRoom", alice,
                ["preset": "private_chat", "invite": ["@bob:localhost"], "topic": "tea time"]
            ).json["room_id"]?.stringValue ?? ""
        _ = await client.ask(.POST, "\(base)/join/\(room)", bob)
        let root = await send("tea together", in: room, id: "1")
        let other = await send("tea alone", in: room, id: "2")
        let since = await client.ask(.GET, "\(base)/sync", bob).json["next_batch"]?.stringValue ?? ""
        _ = await client.ask(.POST, "\(base)/rooms/\(room)/leave", bob)
        var events = [root, other]
        events.append(await send("hidden tea", in: room, id: "3"))
        events.append(await send("hidden edit", in: room, relation: relation("m.replace", root), id: "4"))
        events.append(await send("hidden thread", in: room, relation: relation("m.thread", root), id: "5"))
        events.append(await send("hidden reference", in: room, relation: relation("m.reference", root), id: "6"))
        var reaction = relation("m.annotation", other)
        reaction["key"] = "hidden"
        events.append(await send("hidden", in: room, relation: reaction, type: "m.reaction", id: "7"))
        _ = await client.ask(.PUT, "\(base)/rooms/\(room)/state/m.room.topic", alice, ["topic": "hidden topic"])
        _ = await client.ask(.PUT, "\(base)/rooms/\(room)/state/m.room.name", alice, ["name": "hidden name"])
        _ = await client.ask(
            .PUT, "\(base)/profile/@alice:localhost/displayname", alice, ["displayname": "hidden profile"])
        _ = try await client.server.homeserver.indexing.run()
        await expectNothing(of: "hidden", in: room, events, since: since, sees: "tea together")
        // Not even that there was something: the IDs of what came don't show either.
        for event in events.dropFirst(2) {
            await expectNothing(of: "\"\(event)\"", in: room, [root, other], since: since, sees: "tea together")
        }
        // Alice sees it all.
        let shown = await client.ask(.GET, "\(base)/rooms/\(room)/event/\(root)", alice).json["unsigned"]
        #expect(shown?["m.relations"]?["m.replace"]?["content"]?["body"] == "hidden edit")
        #expect(shown?["m.relations"]?["m.thread"]?["latest_event"]?["content"]?["body"] == "hidden thread")
        await client.server.close()
    }

    @Test("A20: before joining nothing shows where history is for those who were there, on any path")
    func beforeJoining() async throws {
        let room =
            await client.ask(
                .POST, "\(base)/createRoom", alice,
                [
                    "preset": "private_chat", "topic": "hidden topic",
                    "initial_state": [
                        [
                            "type": "m.room.history_visibility", "state_key": "",
                            "content": ["history_visibility": "joined"],
                        ]
                    ],
                ]
            ).json["room_id"]?.stringValue ?? ""
        let root = await send("hidden tea", in: room, id: "1")
        let threaded = await send("hidden thread", in: room, relation: relation("m.thread", root), id: "2")
        let edit = await send("hidden edit", in: room, relation: relation("m.replace", root), id: "3")
        _ = await client.ask(.PUT, "\(base)/rooms/\(room)/state/m.room.topic", alice, ["topic": "tea time"])
        _ = await client.ask(.POST, "\(base)/rooms/\(room)/invite", alice, ["user_id": "@bob:localhost"])
        let since = await client.ask(.GET, "\(base)/sync", bob).json["next_batch"]?.stringValue ?? ""
        _ = await client.ask(.POST, "\(base)/join/\(room)", bob)
        let seen = await send("tea together", in: room, relation: relation("m.thread", root), id: "4")
        _ = try await client.server.homeserver.indexing.run()
        await expectNothing(of: "hidden", in: room, [root, threaded, edit, seen], since: since, sees: "tea together")
        await client.server.close()
    }
}
