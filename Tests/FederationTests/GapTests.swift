import Homeserver
import MatrixCore
import RoostTestSupport
import Testing

@testable import Database

@Suite("Events that rest on what is not here")
struct GapTests {
    /// Events each upon the one before it, with what the attacker knows of the room.
    private func chain(_ count: Int, in scene: HostileScene) throws -> [Event] {
        var place = scene.place
        return try (0..<count).map { number in
            let event = try scene.evil.event(
                "m.room.message", content: scene.message("\(number)"), by: scene.mallory, in: place)
            place.tip = event
            return event
        }
    }

    /// A server that means no harm, with a user in the room.
    private func joinedByAnother(
        _ scene: HostileScene
    ) async throws -> (HostileServer, UserID, HostileServer.Place) {
        let other = HostileServer("other.example", on: scene.scene.network, clock: scene.server.clock, seed: 9)
        let oscar = other.user("oscar")
        return (other, oscar, try await other.join(scene.room, as: oscar, at: scene.name))
    }

    private func texts(_ scene: HostileScene) async throws -> [String] {
        try await scene.scene.texts(in: scene.room, for: scene.alice, on: scene.server)
    }

    @Test("a hole is filled by what the sender tells when it is asked, in the right order")
    func filled() async throws {
        let scene = try await HostileScene()
        let events = try chain(30, in: scene)
        // Ten at a time, whatever is asked for.
        scene.answer("/get_missing_events/") { request in
            let latest = try JSONDocument(parsing: request.body ?? []).root["latest_events"]?.elements.compactMap(
                \.string)
            guard let end = events.firstIndex(where: { latest?.contains($0.eventID.string) == true }) else {
                return nil
            }
            return ["events": .array(events[max(0, end - 10)..<end].map(\.root.json))]
        }
        try await scene.evil.send([events[29].root.json], id: "gap", to: scene.name)
        try await scene.scene.eventually("all is there") { try await texts(scene).count == 30 }
        #expect(try await texts(scene) == (0..<30).map(String.init))
        #expect(try await ConsistencyCheck(scene.server.homeserver.database).run().problems == [])
        await scene.scene.close()
    }

    @Test("what a peer pushes late out of a hole is history: no news, and no end of the graph")
    func pushedLate() async throws {
        let scene = try await HostileScene()
        let events = try chain(4, in: scene)
        let state = Array(scene.place.state.values)
        scene.answer("/get_missing_events/") { _ in ["events": []] }
        scene.answer("/state_ids/") { _ in
            [
                "pdu_ids": .array(state.map { .string($0.eventID.string) }),
                "auth_chain_ids": .array(state.map { .string($0.eventID.string) }),
            ]
        }
        scene.answer("/backfill/") { _ in ["origin": "evil.example", "origin_server_ts": 1, "pdus": []] }
        try await scene.evil.send([events[3].root.json], id: "behind", to: scene.name)
        try await scene.scene.eventually("the event is there") { try await texts(scene) == ["3"] }
        let database = scene.server.homeserver.database
        let extremities = try #require(try await database.room(scene.room)?.extremities)
        let since = try await scene.server.sync(scene.alice)["next_batch"]?.string
        // The last of them fills the hole whole.
        for number in [2, 1, 0] {
            try await scene.evil.send([events[number].root.json], id: "late\(number)", to: scene.name)
            try await scene.scene.eventually("it is history") {
                try await texts(scene) == (number...3).map(String.init)
            }
        }
        let news = try await scene.server.sync(scene.alice, since: since)
        #expect(news["rooms"]?["join"]?[scene.room.string]?["timeline"]?["events"]?.elements.map(\.json) ?? [] == [])
        #expect(try await database.room(scene.room)?.extremities == extremities)
        #expect(try await ConsistencyCheck(database).run().problems == [])
        await scene.scene.close()
    }

    @Test(
        "where nobody has what is missing, the state before the event is asked for, and the room goes on behind the gap"
    )
    func behind() async throws {
        let scene = try await HostileScene()
        let events = try chain(5, in: scene)
        let state = Array(scene.place.state.values)
        scene.answer("/get_missing_events/") { _ in ["events": []] }
        scene.answer("/state_ids/") { _ in
            [
                "pdu_ids": .array(state.map { .string($0.eventID.string) }),
                "auth_chain_ids": .array(state.map { .string($0.eventID.string) }),
            ]
        }
        try await scene.evil.send([events[4].root.json], id: "behind", to: scene.name)
        try await scene.scene.eventually("the event is there") { try await texts(scene) == ["4"] }
        scene.answer("/send/") { _ in ["pdus": [:]] }
        // What is said here is said upon it, and the hole is filled when somebody goes back.
        try await scene.server.say("after", in: scene.room, by: scene.alice)
        scene.answer("/backfill/") { _ in
            [
                "origin": "evil.example", "origin_server_ts": 1,
                "pdus": .array(events.dropLast().reversed().map(\.root.json)),
            ]
        }
        try await scene.scene.eventually("the hole is filled") {
            try await texts(scene) == ["0", "1", "2", "3", "4", "after"]
        }
        #expect(try await ConsistencyCheck(scene.server.homeserver.database).run().problems == [])
        await scene.scene.close()
    }

    @Test("an event that nobody can place waits for an hour, holds nothing else up, and is given up")
    func unplaceable() async throws {
        let scene = try await HostileScene()
        let events = try chain(3, in: scene)
        for path in ["/get_missing_events/", "/state_ids/", "/state/", "/event/", "/event_auth/"] {
            scene.answer(path) { _ in ["nonsense": true] }
        }
        let answer = try await scene.evil.send([events[2].root.json], id: "lost", to: scene.name)
        #expect(answer.errors.isEmpty)
        let good = try scene.evil.event(
            "m.room.message", content: scene.message("good"), by: scene.mallory, in: scene.place)
        try await scene.evil.send([good.root.json], id: "good", to: scene.name)
        #expect(try await texts(scene) == ["good"])
        let database = scene.server.homeserver.database
        let nid = try #require(try await database.room(scene.room)?.nid)
        #expect(try await database.countOfStagedEvents(in: nid) == 1)
        scene.server.clock.advance(by: 3_700_000)
        try await scene.scene.eventually("it is given up") { try await database.countOfStagedEvents(in: nid) == 0 }
        #expect(try await texts(scene) == ["good"])
        await scene.scene.close()
    }

    @Test("A16 what nobody can place is asked for again a few times in an hour, however much of it comes")
    func retries() async throws {
        let scene = try await HostileScene()
        for path in ["/get_missing_events/", "/state_ids/", "/state/", "/event/", "/event_auth/"] {
            scene.answer(path) { _ in ["nonsense": true] }
        }
        for number in 0..<20 {
            var place = scene.place
            for step in 0..<2 {
                place.tip = try scene.evil.event(
                    "m.room.message", content: scene.message("\(number) \(step)"), by: scene.mallory, in: place)
            }
            try await scene.evil.send([place.tip.root.json], id: "lost\(number)", to: scene.name)
            scene.server.clock.advance(by: 1_000)
        }
        let database = scene.server.homeserver.database
        let nid = try #require(try await database.room(scene.room)?.nid)
        // Until they are given up: an hour, in steps after which what is due is done.
        try await scene.scene.eventually("they are given up") {
            scene.server.clock.advance(by: 20_000)
            return try await database.countOfStagedEvents(in: nid) == 0
        }
        let asked = scene.scene.network.exchanges.count {
            $0.to == scene.evil.name && $0.target.contains("/get_missing_events/")
        }
        // Twenty events, eleven attempts each.
        #expect(asked <= 20 * 13)
        await scene.scene.close()
    }

    @Test("an event whose auth events can't be had, or are garbage, is in no room and stops nothing")
    func authChain() async throws {
        let scene = try await HostileScene()
        let unknown = EventID(unchecked: "$" + String(repeating: "A", count: 43))
        let create = try #require(scene.place.state[.create])
        // Another create event, an event of nobody, one that is changed, one that names itself.
        var changed = create.root.json
        changed["content"] = ["room_version": "11", "creator": .string(scene.mallory.string)]
        let garbage: [JSON] = [
            changed, ["type": "m.room.create"], "nothing", .null, 5,
            ["type": "m.room.power_levels", "auth_events": [.string(unknown.string)], "prev_events": []],
        ]
        scene.answer("/event_auth/") { _ in ["auth_chain": .array(garbage)] }
        scene.answer("/get_missing_events/") { _ in ["events": .array(garbage)] }
        let event = try scene.evil.event(
            "m.room.message", content: scene.message("unfounded"), by: scene.mallory, in: scene.place,
            auth: scene.place.auth([.create, .powerLevels, .member(scene.mallory)]) + [unknown])
        try await scene.evil.send([event.root.json], id: "unfounded", to: scene.name)
        let good = try scene.evil.event(
            "m.room.message", content: scene.message("good"), by: scene.mallory, in: scene.place)
        try await scene.evil.send([good.root.json], id: "good", to: scene.name)
        #expect(try await texts(scene) == ["good"])
        scene.server.clock.advance(by: 3_700_000)
        let database = scene.server.homeserver.database
        let nid = try #require(try await database.room(scene.room)?.nid)
        try await scene.scene.eventually("it is given up") { try await database.countOfStagedEvents(in: nid) == 0 }
        #expect(try await !scene.isShown(event))
        #expect(try await ConsistencyCheck(database).run().problems == [])
        await scene.scene.close()
    }

    @Test("what others say upon a soft-failed event is said, and the soft-failed one stays unseen")
    func uponSoftFailed() async throws {
        let scene = try await HostileScene()
        let (other, oscar, place) = try await joinedByAnother(scene)
        try await scene.server.homeserver.memberships.remove(
            scene.mallory, from: scene.room, .ban, reason: nil, by: scene.alice)
        let late = try scene.evil.event(
            "m.room.message", content: scene.message("late"), by: scene.mallory, in: scene.place)
        try await scene.evil.send([late.root.json], id: "late", to: scene.name)
        #expect(try await scene.flags(of: late)?.contains(.softFailed) == true)
        // The other server has not heard of the ban yet, and answers.
        let answer = try other.event(
            "m.room.message", content: scene.message("answer"), by: oscar, in: place,
            previous: [late.eventID, place.tip.eventID])
        let name = try other.event(
            "m.room.message", content: scene.message("and more"), by: oscar, in: place, previous: [answer.eventID])
        try await other.send([answer.root.json, name.root.json], id: "answer", to: scene.name)
        #expect(try await texts(scene) == ["answer", "and more"])
        #expect(
            try await scene.state("m.room.member", scene.mallory.string)?["content"]?["membership"]?.string == "ban")
        try await scene.server.say("next", in: scene.room, by: scene.alice)
        #expect(try await texts(scene) == ["answer", "and more", "next"])
        await scene.scene.close()
    }

    @Test(
        "what is missing before a soft-failed event is found on going back from what was said upon it, whatever else was",
        arguments: [false, true])
    func behindSoftFailed(isContinued: Bool) async throws {
        let scene = try await HostileScene()
        let (other, oscar, place) = try await joinedByAnother(scene)
        let early = try other.event("m.room.message", content: scene.message("early"), by: oscar, in: place)
        let late = try scene.evil.event(
            "m.room.message", content: scene.message("late"), by: scene.mallory, in: scene.place,
            previous: [early.eventID])
        let state = Array(place.state.values).map { JSON.string($0.eventID.string) }
        scene.scene.network.forge { request in
            guard [other.name, scene.evil.name].contains(request.destination) else { return nil }
            let answer: JSON? =
                if request.target.contains("/get_missing_events/") {
                    ["events": []]
                } else if request.target.contains("/state_ids/") {
                    ["pdu_ids": .array(state), "auth_chain_ids": .array(state)]
                } else if request.target.contains("/backfill/") {
                    ["origin": "other.example", "origin_server_ts": 1, "pdus": [early.root.json]]
                } else if request.target.contains("/send/") {
                    ["pdus": [:]]
                } else {
                    nil
                }
            return answer.map { ServerResponse(status: 200, body: $0.encoded()) }
        }
        try await scene.server.homeserver.memberships.remove(
            scene.mallory, from: scene.room, .ban, reason: nil, by: scene.alice)
        try await scene.evil.send([late.root.json], id: "late", to: scene.name)
        try await scene.scene.eventually("it is soft-failed") {
            try await scene.flags(of: late)?.contains(.softFailed) == true
        }
        if isContinued {
            let more = try scene.evil.event(
                "m.room.message", content: scene.message("more"), by: scene.mallory, in: scene.place,
                previous: [late.eventID])
            try await scene.evil.send([more.root.json], id: "more", to: scene.name)
            try await scene.scene.eventually("it is soft-failed, too") {
                try await scene.flags(of: more)?.contains(.softFailed) == true
            }
        }
        let answer = try other.event(
            "m.room.message", content: scene.message("answer"), by: oscar, in: place,
            previous: [late.eventID, place.tip.eventID])
        try await other.send([answer.root.json], id: "answer", to: scene.name)
        try await scene.scene.eventually("what was before comes") {
            try await texts(scene) == ["early", "answer"]
        }
        #expect(try await ConsistencyCheck(scene.server.homeserver.database).run().problems == [])
        await scene.scene.close()
    }
}
