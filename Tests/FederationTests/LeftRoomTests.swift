import Homeserver
import MatrixCore
import RoostTestSupport
import Testing

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
}
