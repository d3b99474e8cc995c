import MatrixCore
import RoostTestSupport
import Testing

@testable import Database
@testable import Homeserver

@Suite("Rooms that a server has left")
struct LeftRoomTests {
    @Test("who was in a room with this server may still ask for what was there before it left, and nobody else")
    func asked() async throws {
        let scene = try await FederationScene(1)
        let alice = try await scene[0].user("alice")
        let room = try await scene[0].room(of: alice, version: "11")
        let name = scene[0].configuration.serverName
        let evil = HostileServer("evil.example", on: scene.network, clock: scene[0].clock)
        let place = try await evil.join(room, as: evil.user("mallory"), at: name)
        try await scene[0].say("said before", in: room, by: alice)
        let last = try await scene[0].say("said last", in: room, by: alice)
        try await scene[0].homeserver.memberships.leave(room, reason: nil, by: alice)
        let stranger = HostileServer("stranger.example", on: scene.network, clock: scene[0].clock, seed: 8)
        let quoted = HostileServer.quote(room.string), event = HostileServer.quote(last.string)
        let body: JSON = [
            "earliest_events": [.string(place.tip.eventID.string)], "latest_events": [.string(last.string)],
            "limit": 10, "min_depth": 0,
        ]
        for (method, target, content, answer) in [
            ("POST", "get_missing_events/\(quoted)", body, "said before"),
            ("GET", "backfill/\(quoted)?v=\(event)&limit=10", nil, "said before"),
            ("GET", "state_ids/\(quoted)?event_id=\(event)", nil, place.tip.eventID.string),
            ("GET", "event/\(event)", nil, "said last"),
        ] as [(String, String, JSON?, String)] {
            let path = "/_matrix/federation/v1/\(target)"
            let told = try await evil.ask(method, path, content, of: name)
            #expect(told.status == 200, "\(target)")
            let text = String(decoding: told.root.raw, as: UTF8.self)
            #expect(text.contains(answer), "\(target)")
            #expect(try await stranger.ask(method, path, content, of: name).status >= 403, "\(target)")
        }
        // There is no way in by it.
        let path = "/_matrix/federation/v1/make_join/\(quoted)/\(HostileServer.quote(evil.user("eve").string))?ver=11"
        #expect(try await evil.ask("GET", path, of: name).status == 404)
        await scene.close()
    }

    @Test("who comes in by way of a server that hasn't heard of a leave learns it from those who left")
    func believed() async throws {
        let scene = try await FederationScene(3)
        let names = scene.servers.map(\.configuration.serverName)
        let alice = try await scene[0].user("alice"), bob = try await scene[1].user("bob")
        let carol = try await scene[2].user("carol")
        let room = try await scene[0].room(of: alice)
        for (server, user) in [(scene[1], bob), (scene[2], carol)] {
            try await server.homeserver.memberships.join(room, reason: nil, via: [names[0]], by: user)
        }
        func settle() async throws {
            try await scene.eventually("all has been told") {
                scene.servers.allSatisfy { $0.homeserver.federation.sender.waiting.isEmpty }
            }
        }
        func membership(of user: UserID, on index: Int = 0) async throws -> String? {
            let state = try await scene[index].homeserver.reading.state(
                of: room, key: .member(user), wholeEvent: false, for: [alice, bob, carol][index])
            return try JSONDocument(parsing: state).root["membership"]?.string
        }
        try await settle()
        try await scene[0].homeserver.memberships.leave(room, reason: nil, by: alice)
        for index in 1...2 {
            try await scene.eventually("the others have heard of the leave") {
                try await membership(of: alice.userID, on: index) == "leave"
            }
        }
        try await settle()
        scene.network.cut(from: names[1], to: names[2])
        try await scene[1].homeserver.memberships.leave(room, reason: nil, by: bob)
        try await scene[0].homeserver.memberships.join(room, reason: nil, via: [names[2]], by: alice)
        try await scene[2].homeserver.memberships.leave(room, reason: nil, by: carol)
        scene.network.mendAll()
        try await settle()
        #expect(try await membership(of: carol.userID) == "leave")
        #expect(try await membership(of: bob.userID) == "join")
        // Long after it left, so that nothing is on its way any more.
        for server in scene.servers { server.clock.advance(by: 60_000) }
        try await scene[0].say("is anybody there?", in: room, by: alice)
        try await scene.eventually("it has left for the other one, too") {
            try await membership(of: bob.userID) == "leave"
        }
        let asked = scene.network.exchanges.filter { $0.to == names[0] && $0.target.contains("/make_leave/") }
        #expect(asked.map(\.from) == [names[1]])
        await scene.close()
    }

    @Test("and a stranger who tells of the room doesn't learn from them who was in it")
    func told() async throws {
        let scene = try await FederationScene(1)
        let alice = try await scene[0].user("alice"), name = scene[0].configuration.serverName
        let room = try await scene[0].room(of: alice, version: "11")
        let evil = HostileServer("evil.example", on: scene.network, clock: scene[0].clock)
        let place = try await evil.join(room, as: evil.user("mallory"), at: name)
        let stranger = HostileServer("stranger.example", on: scene.network, clock: scene[0].clock, seed: 8)
        try await scene[0].homeserver.memberships.leave(room, reason: nil, by: alice)
        scene[0].clock.advance(by: 60_000)
        func corrections() -> [ServerName] {
            scene.network.exchanges.filter { $0.target.contains("/make_leave/") }.map(\.to)
        }
        for server in [stranger, evil] {
            let event = try server.event(
                "m.room.message", content: ["msgtype": "m.text", "body": "psst"], by: server.user("mallory"), in: place)
            try await server.send([event.root.json], id: "told", to: name)
        }
        scene[0].clock.advance(by: 10_000)
        try await scene.eventually("who was in the room is told") { corrections().contains(evil.name) }
        #expect(corrections() == [evil.name])
        await scene.close()
    }

    @Test(
        "who comes back by way of a server that hasn't heard of the leave is in the room for all, or for nobody",
        arguments: [false, true], [20, 1])
    func backUnheard(isOutranked: Bool, partialFrom: Int) async throws {
        let failing = FailingTransport()
        let scene = try await FederationScene(
            2, configure: { $0.federation.partialFrom = partialFrom }, wrap: { failing.between($0) })
        let (first, second) = (scene[0].configuration.serverName, scene[1].configuration.serverName)
        let alice = try await scene[0].user("alice"), bob = try await scene[1].user("bob")
        let room = try await scene[0].room(of: alice, version: "11")
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [first], by: bob)
        let both = Set([alice, bob].map(\.userID.string))
        func members(_ index: Int) async throws -> Set<String> {
            let answer = try await scene[index].homeserver.reading.joinedMembers(
                of: room, for: index == 0 ? alice : bob)
            return Set(try JSONDocument(parsing: answer).root["joined"]?.members.map(\.0) ?? [])
        }
        func comeBack() async throws {
            try await scene[0].homeserver.memberships.join(room, reason: nil, via: [second], by: alice)
        }
        try await scene[0].changeKeys(of: alice, to: 1)
        try await scene.eventually("her device is known, after all that was told of it") {
            let isKnown = try await scene[1].knowsKeys(of: alice, 1, for: bob)
            return isKnown && scene.network.exchanges.contains { $0.target.contains("/user/devices/%40alice") }
        }
        failing.fail { $0.destination == second && $0.target.contains("/v1/send/") }
        if isOutranked {
            // The leave comes behind these, and the join before them: where both meet, the leave counts.
            _ = try await scene[0].homeserver.sending.setState(
                .powerLevels, content: ["users": .object([alice.userID.string: 100]), "events_default": 0], in: room,
                by: alice)
        }
        scene[0].clock.advance(by: 1_000)
        try await scene[0].homeserver.memberships.leave(room, reason: nil, by: alice)
        scene[0].clock.advance(by: 1_000)
        try await scene[0].changeKeys(of: alice, to: 2)
        if isOutranked {
            await #expect(throws: MatrixError.self) { try await comeBack() }
        } else {
            try await comeBack()
            #expect(try await members(0) == both)
        }
        failing.fail { _ in false }
        try await scene.eventually("all has been told") {
            scene.servers.allSatisfy { $0.homeserver.federation.sender.waiting.isEmpty }
        }
        if isOutranked {
            try await scene.eventually("she is out of it") { try await members(1) == [bob.userID.string] }
            try await comeBack()
        }
        for text in ["from alice", "once more"] {
            try await scene[0].say(text, in: room, by: alice)
            try await scene.eventually("bob reads it") {
                try await scene.texts(in: room, for: bob, on: scene[1]).contains(text)
            }
        }
        try await scene.eventually("what her device has become meanwhile is known") {
            try await scene[1].knowsKeys(of: alice, 2, for: bob)
        }
        for index in 0...1 {
            #expect(try await members(index) == both)
            #expect(try await ConsistencyCheck(scene[index].homeserver.database).run().problems == [])
        }
        await scene.close()
    }
}
