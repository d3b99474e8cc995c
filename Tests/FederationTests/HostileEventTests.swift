import MatrixCore
import RoostTestSupport
import Testing

@testable import Database
@testable import Homeserver

@Suite("What hostile servers send")
struct HostileEventTests {
    private typealias Scene = HostileScene

    private func message(_ text: String) -> JSON { ["msgtype": "m.text", "body": .string(text)] }

    @Test("A06 an event that its sender's server has not signed gets in by no transaction")
    func unsigned() async throws {
        let scene = try await Scene()
        // In the name of a user of the attacked server, and of a third one, with the attacker's key.
        for user in [scene.alice.userID, UserID(unchecked: "@somebody:third.example")] {
            let forged = try scene.evil.event(
                "m.room.message", content: message("forged"), by: user, in: scene.place)
            let answer = try await scene.evil.send(
                [forged.root.json], id: "f\(user)".filter(\.isLetter), to: scene.name)
            #expect(answer.status == 200)
            #expect(answer.errors[forged.eventID.string] != nil)
            #expect(try await scene.flags(of: forged) == nil)
        }
        // Signed in the right name with another key.
        let other = SigningKey(seed: [UInt8](repeating: 9, count: 32), version: "evil")!
        let wrong = try scene.evil.event(
            "m.room.message", content: message("wrong key"), by: scene.mallory, in: scene.place, key: other)
        let answer = try await scene.evil.send([wrong.root.json], id: "wrong", to: scene.name)
        #expect(answer.errors[wrong.eventID.string] != nil)
        #expect(try await scene.flags(of: wrong) == nil)
        await scene.scene.close()
    }

    @Test("A06 an event whose content was changed after it was signed comes in redacted")
    func changedContent() async throws {
        let scene = try await Scene()
        let event = try scene.evil.event("m.room.message", content: message("said"), by: scene.mallory, in: scene.place)
        var changed = event.root.json
        changed["content"] = message("never said")
        try await scene.evil.send([changed], id: "changed", to: scene.name)
        let stored = try #require(try await scene.server.homeserver.database.event(event.eventID))
        #expect(!String(decoding: stored.json, as: UTF8.self).contains("said"))
        await scene.scene.close()
    }

    @Test("A10 one malformed event keeps nothing else of a transaction out")
    func malformed() async throws {
        let scene = try await Scene()
        let good = try scene.evil.event("m.room.message", content: message("good"), by: scene.mallory, in: scene.place)
        let bad: [JSON] = [
            ["room_id": .string(scene.room.string)], ["room_id": 5], "no object", .null,
            ["room_id": .string(scene.room.string), "type": "m.room.message", "content": [], "depth": -1],
            ["room_id": "!unknown:evil.example", "type": "m.room.message"],
        ]
        let answer = try await scene.evil.send(
            bad + [good.root.json] + bad, edus: ["nothing", ["edu_type": 5], ["edu_type": "m.typing", "content": []]],
            id: "mixed", to: scene.name)
        #expect(answer.status == 200)
        #expect(try await scene.isShown(good))
        await scene.scene.close()
    }

    @Test("A03 an event that rests on auth events of another room is rejected")
    func otherRoom() async throws {
        let scene = try await Scene()
        let second = try await scene.server.room(of: scene.alice, version: "11")
        let place = try await scene.evil.join(second, as: scene.mallory, at: scene.name)
        let keys: [StateKey] = [.create, .powerLevels, .member(scene.mallory)]
        let event = try scene.evil.event(
            "m.room.message", content: message("smuggled"), by: scene.mallory, in: scene.place, auth: place.auth(keys))
        try await scene.evil.send([event.root.json], id: "other", to: scene.name)
        #expect(try await scene.flags(of: event)?.contains(.rejected) == true)
        await scene.scene.close()
    }

    @Test("A05 a rejected event stays rejected, whatever rests on it, and comes back by no way")
    func rejectedAgain() async throws {
        let scene = try await Scene()
        var levels: JSON = ["users": [scene.mallory.string: 100]]
        levels["users_default"] = 0
        let grab = try scene.evil.event(
            "m.room.power_levels", stateKey: "", content: levels, by: scene.mallory, in: scene.place)
        try await scene.evil.send([grab.root.json], id: "grab", to: scene.name)
        #expect(try await scene.flags(of: grab)?.contains(.rejected) == true)
        // What rests on it, as if it stood, is rejected too; sent again, it is known.
        var place = scene.place
        place.state[.powerLevels] = grab
        place.tip = grab
        let ban = try scene.evil.event(
            "m.room.member", stateKey: scene.alice.userID.string, content: ["membership": "ban"], by: scene.mallory,
            in: place)
        let answer = try await scene.evil.send([grab.root.json, ban.root.json], id: "again", to: scene.name)
        #expect(answer.status == 200)
        #expect(try await scene.flags(of: grab)?.contains(.rejected) == true)
        #expect(try await scene.flags(of: ban)?.contains(.rejected) == true)
        #expect(
            try await scene.state("m.room.member", scene.alice.userID.string)?["content"]?["membership"]?.string
                == "join")
        // An event upon the rejected one sees the state from before it.
        let after = try scene.evil.event(
            "m.room.message", content: message("after"), by: scene.mallory, in: scene.place, previous: [grab.eventID])
        try await scene.evil.send([after.root.json], id: "after", to: scene.name)
        #expect(try await scene.isShown(after))
        #expect(try await scene.state("m.room.power_levels")?["content"]?["users"]?[scene.mallory.string] == nil)
        await scene.scene.close()
    }

    @Test(
        "what the past allowed and the present doesn't is soft-failed, and what rests on it is judged by its own ground"
    )
    func softFailed() async throws {
        let scene = try await Scene()
        try await scene.server.homeserver.memberships.remove(
            scene.mallory, from: scene.room, .ban, reason: nil, by: scene.alice)
        // Upon the join, as if the ban had not been heard of.
        let late = try scene.evil.event("m.room.message", content: message("late"), by: scene.mallory, in: scene.place)
        let answer = try await scene.evil.send([late.root.json], id: "late", to: scene.name)
        #expect(answer.errors.isEmpty)
        #expect(try await scene.flags(of: late)?.contains(.softFailed) == true)
        #expect(try await scene.server.history(of: scene.room, for: scene.alice).contains("late") == false)
        #expect(
            try await scene.state("m.room.member", scene.mallory.string)?["content"]?["membership"]?.string == "ban")
        // Nothing of this server builds upon it.
        let next = try await scene.server.say("next", in: scene.room, by: scene.alice)
        let stored = try #require(try await scene.server.homeserver.database.event(next))
        let hidden = try #require(try await scene.server.homeserver.database.event(late.eventID))
        #expect(!stored.previous.contains(hidden.nid))
        await scene.scene.close()
    }

    @Test("A13 receipts in any number of threads are kept of the newest ones, and shown in time")
    func threadsWithoutEnd() async throws {
        let scene = try await Scene()
        let said = try await scene.server.say("hello", in: scene.room, by: scene.alice)
        for number in -1..<3 {
            let edus: [JSON] = (0..<60).map { place in
                let receipt: JSON = [
                    "event_ids": [.string(said.string)],
                    "data": ["ts": 1, "thread_id": .string(number < 0 ? "main" : "$thread \(number) \(place)")],
                ]
                return [
                    "edu_type": "m.receipt",
                    "content": [scene.room.string: ["m.read": [scene.mallory.string: receipt]]],
                ]
            }
            try await scene.evil.send([], edus: edus, id: "receipts \(number)", to: scene.name)
        }
        let database = scene.server.homeserver.database
        let room = try #require(try await database.room(scene.room)).nid
        let mallory = try await database.number(ofUser: scene.mallory)
        let kept = try await database.read { try await database.receipts(in: room, of: mallory, $0) }
        #expect(kept.count == 101 && kept.contains { $0.thread == "main" })
        #expect(kept.contains { $0.thread == "$thread 2 59" } && !kept.contains { $0.thread == "$thread 0 59" })
        // An event's content has place for one of them.
        let ephemeral = try await scene.server.sync(scene.alice)["rooms"]?["join"]?[scene.room.string]?["ephemeral"]
        let shown = ephemeral?["events"]?.elements.filter {
            $0["content"]?[said.string]?["m.read"]?[scene.mallory.string] != nil
        }
        #expect(shown?.count == 101)
        await scene.scene.close()
    }

    @Test("A23 a server speaks for its own users only: typing, receipts, presence, devices, messages to devices")
    func forgedEDUs() async throws {
        let scene = try await Scene()
        let victim = scene.alice.userID
        let bob = try await scene.server.user("bob")
        try await scene.server.homeserver.memberships.join(scene.room, reason: nil, by: bob)
        let said = try await scene.server.say("hello", in: scene.room, by: scene.alice)
        _ = try await scene.server.sync(bob)
        let since = try #require(try await scene.server.sync(bob)["next_batch"]?.string)
        let receipt: JSON = ["event_ids": [.string(said.string)], "data": ["ts": 1]]
        let edus: [JSON] = [
            [
                "edu_type": "m.typing",
                "content": ["room_id": .string(scene.room.string), "user_id": .string(victim.string), "typing": true],
            ],
            ["edu_type": "m.receipt", "content": [scene.room.string: ["m.read": [victim.string: receipt]]]],
            [
                "edu_type": "m.presence",
                "content": [
                    "push": [["user_id": .string(victim.string), "presence": "unavailable", "status_msg": "forged"]]
                ],
            ],
            [
                "edu_type": "m.device_list_update",
                "content": ["user_id": .string(victim.string), "device_id": "X", "stream_id": 1],
            ],
            [
                "edu_type": "m.direct_to_device",
                "content": [
                    "sender": .string(victim.string), "type": "m.forged", "message_id": "1",
                    "messages": [bob.userID.string: ["*": ["forged": true]]],
                ],
            ],
        ]
        try await scene.evil.send([], edus: edus, id: "edus", to: scene.name)
        scene.server.clock.advance(by: 5_000)
        let answer = try await scene.server.sync(bob, since: since)
        let text = String(decoding: answer.raw, as: UTF8.self)
        #expect(!text.contains("m.typing") && !text.contains("m.receipt") && !text.contains("forged"))
        #expect(answer["device_lists"]?["changed"]?.elements.contains { $0.isString(victim.string) } != true)
        await scene.scene.close()
    }

    @Test("an access control list keeps a server's events and what passes out, from the moment that it stands")
    func accessControl() async throws {
        let scene = try await Scene()
        _ = try await scene.server.homeserver.sending.setState(
            StateKey("m.room.server_acl"), content: ["allow": ["*"], "deny": ["evil.example"]], in: scene.room,
            by: scene.alice)
        let event = try scene.evil.event(
            "m.room.message", content: message("kept out"), by: scene.mallory, in: scene.place)
        try await scene.evil.send(
            [event.root.json],
            edus: [
                [
                    "edu_type": "m.typing",
                    "content": [
                        "room_id": .string(scene.room.string), "user_id": .string(scene.mallory.string), "typing": true,
                    ],
                ]
            ],
            id: "acl", to: scene.name)
        #expect(try await scene.flags(of: event) == nil)
        let quoted = HostileServer.quote(scene.room.string)
        for (method, target) in [
            (
                "GET",
                "/_matrix/federation/v1/backfill/\(quoted)?v=\(HostileServer.quote(scene.place.tip.eventID.string))&limit=10"
            ),
            (
                "GET",
                "/_matrix/federation/v1/state_ids/\(quoted)?event_id=\(HostileServer.quote(scene.place.tip.eventID.string))"
            ),
            ("GET", "/_matrix/federation/v1/make_join/\(quoted)/\(HostileServer.quote(scene.mallory.string))?ver=11"),
        ] {
            let answer = try await scene.evil.ask(method, target, of: scene.name)
            #expect(answer.status == 403, "\(target)")
        }
        await scene.scene.close()
    }

    @Test("A21 a server gets no event that none of its users may see, by no way")
    func invisible() async throws {
        let scene = try await FederationScene(1)
        let alice = try await scene[0].user("alice")
        let room = try await scene[0].room(of: alice, version: "11") { request in
            request.initialState = [.init(key: .historyVisibility, content: ["history_visibility": "joined"])]
        }
        let name = scene[0].configuration.serverName
        let secret = try await scene[0].say("secret", in: room, by: alice)
        let stranger = HostileServer("stranger.example", on: scene.network, clock: scene[0].clock, seed: 8)
        let path = "/_matrix/federation/v1/event/\(HostileServer.quote(secret.string))"
        #expect(try await stranger.ask("GET", path, of: name).status == 404)
        let evil = HostileServer("evil.example", on: scene.network, clock: scene[0].clock)
        let place = try await evil.join(room, as: evil.user("mallory"), at: name)
        let quoted = HostileServer.quote(room.string)
        let tip = HostileServer.quote(place.tip.eventID.string)
        let body: JSON = [
            "earliest_events": [], "latest_events": [.string(place.tip.eventID.string)], "limit": 20, "min_depth": 0,
        ]
        for (method, target, content) in [
            ("GET", path, nil), ("GET", "/_matrix/federation/v1/backfill/\(quoted)?v=\(tip)&limit=50", nil),
            ("POST", "/_matrix/federation/v1/get_missing_events/\(quoted)", body),
        ] as [(String, String, JSON?)] {
            let answer = try await evil.ask(method, target, content, of: name)
            #expect(answer.status == 200, "\(target)")
            #expect(!String(decoding: answer.root.raw, as: UTF8.self).contains("secret"), "\(target)")
        }
        await scene.close()
    }

    @Test("a redaction that comes before its event takes effect when that comes")
    func earlyRedaction() async throws {
        let scene = try await Scene()
        let said = try scene.evil.event(
            "m.room.message", content: message("regretted"), by: scene.mallory, in: scene.place)
        let redaction = try scene.evil.event(
            "m.room.redaction", content: [:], by: scene.mallory, in: scene.place, redacts: said.eventID)
        try await scene.evil.send([redaction.root.json], id: "redaction", to: scene.name)
        try await scene.evil.send([said.root.json], id: "said", to: scene.name)
        #expect(try await scene.isShown(said))
        #expect(try await scene.server.history(of: scene.room, for: scene.alice).contains("regretted") == false)
        await scene.scene.close()
    }

    @Test("a redaction that comes together with its event takes effect")
    func redactionTogether() async throws {
        let scene = try await Scene()
        let said = try scene.evil.event(
            "m.room.message", content: message("regretted words"), by: scene.mallory, in: scene.place)
        let redaction = try scene.evil.event(
            "m.room.redaction", content: ["redacts": .string(said.eventID.string)], by: scene.mallory, in: scene.place,
            previous: [said.eventID], redacts: said.eventID)
        try await scene.evil.send([said.root.json, redaction.root.json], id: "both", to: scene.name)
        #expect(try await scene.isShown(said))
        let database = scene.server.homeserver.database
        let (stored, by) = (try await database.event(said.eventID), try await database.event(redaction.eventID))
        #expect(stored?.redactedBy == by?.nid && by != nil)
        #expect(try await scene.server.history(of: scene.room, for: scene.alice).contains("regretted words") == false)
        let shown = try JSONDocument(
            parsing: try await scene.server.homeserver.reading.event(said.eventID, in: scene.room, for: scene.alice)
        ).root
        #expect(shown["content"]?["body"] == nil && shown["unsigned"]?["redacted_because"] != nil)
        while try await !database.searchQueue(limit: 1).isEmpty { try await scene.server.homeserver.indexing.run() }
        let request = try SearchRequest(
            JSON.object(["search_term": "regretted"]).view, nextBatch: nil)
        let found = try JSONDocument(
            parsing: try await scene.server.homeserver.search.search(request, for: scene.alice)
        ).root["search_categories"]?["room_events"]?["count"]?.integer
        #expect(found == 0)
        #expect(try await ConsistencyCheck(database).run().problems == [])
        await scene.scene.close()
    }

    @Test("a redaction that is fetched as history takes effect on what has been here all the time")
    func redactionOfHistory() async throws {
        let scene = try await Scene()
        let said = try scene.evil.event(
            "m.room.message", content: message("regretted"), by: scene.mallory, in: scene.place)
        try await scene.evil.send([said.root.json], id: "said", to: scene.name)
        let redaction = try scene.evil.event(
            "m.room.redaction", content: ["redacts": .string(said.eventID.string)], by: scene.mallory, in: scene.place,
            previous: [said.eventID], redacts: said.eventID)
        let rooms = scene.server.homeserver.reading.rooms
        let room = try #require(try await rooms.room(scene.room))
        let database = scene.server.homeserver.database
        let reception = try await rooms.perform(in: room) { draft in
            try await draft.receive(
                redaction, before: draft.record.depth, at: try await database.newBackfillPositions(1),
                stateBefore: draft.record.state)
        }
        guard case .accepted = reception else {
            Issue.record("\(reception)")
            return
        }
        #expect(try await database.event(said.eventID)?.redactedBy == database.event(redaction.eventID)?.nid)
        #expect(try await scene.server.history(of: scene.room, for: scene.alice).contains("regretted") == false)
        await scene.scene.close()
    }

    @Test(
        "an event that comes together with what refers to it, or after it, is shown with that",
        arguments: [false, true])
    func childrenFirst(isLater: Bool) async throws {
        let scene = try await Scene()
        let said = try scene.evil.event(
            "m.room.message", content: message("first"), by: scene.mallory, in: scene.place)
        let edit = try scene.evil.event(
            "m.room.message",
            content: [
                "msgtype": "m.text", "body": "* second", "m.new_content": ["msgtype": "m.text", "body": "second"],
                "m.relates_to": ["rel_type": "m.replace", "event_id": .string(said.eventID.string)],
            ], by: scene.mallory, in: scene.place, previous: isLater ? nil : [said.eventID])
        if isLater {
            try await scene.evil.send([edit.root.json], id: "edit", to: scene.name)
            try await scene.evil.send([said.root.json], id: "said", to: scene.name)
        } else {
            try await scene.evil.send([said.root.json, edit.root.json], id: "both", to: scene.name)
        }
        // As after a restart: what is remembered of an event is what came.
        await scene.server.close()
        let again = try await TestServer(directory: scene.server.directory, clock: scene.server.clock) {
            $0.serverName = scene.name
        }
        let shown = try JSONDocument(
            parsing: try await again.homeserver.reading.event(said.eventID, in: scene.room, for: scene.alice)
        ).root
        #expect(
            shown["unsigned"]?["m.relations"]?["m.replace"]?["event_id"]?.string == edit.eventID.string,
            "\(String(decoding: shown.raw, as: UTF8.self))")
        await again.close()
    }

    @Test("A13 hundreds of forward extremities are merged, and the room goes on")
    func manyExtremities() async throws {
        let scene = try await Scene()
        for start in stride(from: 0, to: 200, by: 50) {
            let events = try (start..<start + 50).map { number in
                try scene.evil.event(
                    "m.room.message", content: message("fork \(number)"), by: scene.mallory, in: scene.place
                ).root.json
            }
            let answer = try await scene.evil.send(events, id: "fork\(start)", to: scene.name)
            #expect(answer.errors.isEmpty)
        }
        for number in 0..<15 { try await scene.server.say("merge \(number)", in: scene.room, by: scene.alice) }
        let record = try #require(try await scene.server.homeserver.database.room(scene.room))
        #expect(record.extremities.count == 1)
        await scene.scene.close()
    }
}
