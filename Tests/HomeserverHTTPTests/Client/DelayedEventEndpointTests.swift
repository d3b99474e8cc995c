import MatrixCore
import NIOHTTP1
import RoostTestSupport
import Testing

@testable import Homeserver
@testable import HomeserverHTTP

/// Events that are sent later, as clients ask for them (MSC4140).
@Suite("Client-Server API: delayed events")
struct DelayedEventEndpointTests {
    private let base = "/_matrix/client/v3"
    private let unstable = "/_matrix/client/unstable/org.matrix.msc4140"
    private let client: ClientSession
    private let alice: String
    private let room: String

    init() async throws {
        client = ClientSession(try await TestServer { $0.registration.guests = true })
        alice = await client.register("alice")
        room = await client.room(of: alice)
    }

    private var server: TestServer { client.server }

    private func body(
        _ text: String, delay: JSON = 5_000, stateKey: String? = nil
    ) -> JSON {
        var body: JSON = ["delay_ms": delay, "content": ["msgtype": "m.text", "body": .string(text)]]
        if let stateKey {
            body["content"] = ["topic": .string(text)]
            body["state_key"] = .string(stateKey)
        }
        return body
    }

    private func schedule(
        _ body: JSON, _ transaction: String, type: String = "m.room.message", by token: String? = nil
    ) async -> ClientSession.Answer {
        await client.ask(.PUT, "\(unstable)/rooms/\(room)/delayed_event/\(type)/\(transaction)", token ?? alice, body)
    }

    private func id(_ answer: ClientSession.Answer) throws -> String {
        try #require(answer.json["delay_id"]?.stringValue, "\(answer.summary)")
    }

    private func perform(_ action: String, _ id: String, by token: String? = nil) async -> ClientSession.Answer {
        await client.ask(.POST, "\(unstable)/delayed_events/\(id)/\(action)", token ?? alice, [:])
    }

    private func get(_ id: String) async -> JSON {
        await client.ask(.GET, "\(unstable)/delayed_events/\(id)", alice).json
    }

    private func scheduled() async -> [String?] {
        await client.ask(.GET, "\(unstable)/delayed_events", alice).json["delayed_events"]?.arrayValue?.map {
            $0["delay_id"]?.stringValue
        } ?? []
    }

    @Test("they are listed in the order of their times, with all that is known of them, and are sent then")
    func life() async throws {
        let start = server.clock.now
        let late = try id(await schedule(body("late", delay: 9_000), "1"))
        let topic = try id(await schedule(body("topic", delay: 7_000, stateKey: ""), "2", type: "m.room.topic"))
        let early = try id(await schedule(body("early"), "3"))
        #expect(try id(await schedule(body("early"), "3")) == early)
        #expect(await scheduled() == [early, topic, late])
        let known = await get(topic)
        for (key, value) in [
            "delay_id": .string(topic), "room_id": .string(room), "type": "m.room.topic", "state_key": "",
            "delay_ms": 7_000, "scheduled_at": .integer(start), "content": ["topic": "topic"],
        ] as [String: JSON] {
            #expect(known[key] == value, "\(key)")
        }
        for key in ["error", "event_id", "finalised_ts"] { #expect(known[key] == nil, "\(key)") }
        #expect(await get(early)["state_key"] == nil)
        server.clock.advance(by: 7_500)
        #expect(try await server.homeserver.delayedEvents.run() == 2)
        #expect(await scheduled() == [late])
        #expect(await client.ask(.GET, "\(base)/rooms/\(room)/state/m.room.topic/", alice).json == ["topic": "topic"])
        let sent = await get(early)
        let eventID = try #require(sent["event_id"]?.stringValue)
        #expect(sent["finalised_ts"] == .integer(start + 7_500) && sent["error"] == nil)
        let event = await client.ask(.GET, "\(base)/rooms/\(room)/event/\(eventID)", alice).json
        #expect(
            event["content"]?["body"] == "early" && event["unsigned"]?["org.matrix.msc4140.delay_id"] == .string(early))
        await server.close()
    }

    @Test("they can be sent at once, cancelled and begun anew, and what was done once isn't undone")
    func managing() async throws {
        let sent = try id(await schedule(body("sent"), "1"))
        let cancelled = try id(await schedule(body("cancelled"), "2"))
        let restarted = try id(await schedule(body("restarted"), "3"))
        server.clock.advance(by: 4_000)
        for (action, event) in [("send", sent), ("cancel", cancelled), ("restart", restarted)] {
            let answer = await perform(action, event)
            #expect(answer.status == 200 && answer.json == [:], "\(action): \(answer.summary)")
        }
        #expect(await scheduled() == [restarted])
        #expect(await get(restarted)["scheduled_at"] == .integer(server.clock.now))
        server.clock.advance(by: 4_999)
        #expect(try await server.homeserver.delayedEvents.run() == 0)
        server.clock.advance(by: 1)
        #expect(try await server.homeserver.delayedEvents.run() == 1)
        // The same again is as good as done; another end is too late.
        for (action, event, status) in [
            ("send", sent, 200), ("send", restarted, 200), ("cancel", cancelled, 200), ("cancel", sent, 409),
            ("restart", sent, 409), ("send", cancelled, 409), ("restart", cancelled, 409), ("cancel", restarted, 409),
        ] {
            let answer = await perform(action, event)
            #expect(answer.status == status, "\(action): \(answer.summary)")
            if status == 409 { #expect(answer.code == "M_UNKNOWN") }
        }
        let gone = await get(cancelled)
        #expect(gone["finalised_ts"] != nil && gone["event_id"] == nil && gone["error"] == nil)
        let history = await client.ask(.GET, "\(base)/rooms/\(room)/messages?dir=b&limit=50", alice).json["chunk"]
        let bodies = history?.arrayValue?.compactMap { $0["content"]?["body"]?.stringValue }
        #expect(bodies == ["restarted", "sent"])
        await server.close()
    }

    @Test("the form that clients know from before works as well")
    func earlierForm() async throws {
        let message = await client.ask(
            .PUT, "\(base)/rooms/\(room)/send/m.room.message/1?org.matrix.msc4140.delay=5000", alice,
            ["msgtype": "m.text", "body": "x"])
        let state = await client.ask(
            .PUT, "\(base)/rooms/\(room)/state/m.room.topic/?org.matrix.msc4140.delay=6000", alice, ["topic": "x"])
        #expect(await scheduled() == [try id(message), try id(state)])
        let listed = await client.ask(.GET, "\(unstable)/delayed_events", alice).json["delayed_events"]?.arrayValue
        #expect(listed?.first?["delay"] == 5_000 && listed?.first?["running_since"] == .integer(server.clock.now))
        let target = "\(unstable)/delayed_events/\(try id(message))"
        #expect(await client.ask(.POST, target, alice, ["action": "restart"]).status == 200)
        #expect(await client.ask(.POST, target, alice, ["action": "cancel"]).status == 200)
        #expect(await client.ask(.POST, target, alice, ["action": "burn"]).code == "M_INVALID_PARAM")
        #expect(await client.ask(.POST, target, alice, [:]).code == "M_MISSING_PARAM")
        await server.close()
    }

    @Test("what can't be scheduled is refused, and a user has so many at most")
    func limits() async throws {
        let bob = await client.register("bob")
        let longest = DelayedEventService.longestDelay
        for (body, status, code) in [
            (["content": [:]], 400, "M_MISSING_PARAM"), (["delay_ms": 1], 400, "M_MISSING_PARAM"),
            (body("x", delay: 0), 400, "M_INVALID_PARAM"), (body("x", delay: -5), 400, "M_INVALID_PARAM"),
            (body("x", delay: "soon"), 400, "M_BAD_JSON"),
            (body("x", delay: .integer(longest + 1)), 403, "M_FORBIDDEN"),
            (["delay_ms": 1, "content": []], 400, "M_BAD_JSON"),
            (["delay_ms": 1, "content": [:], "state_key": 7], 400, "M_BAD_JSON"),
            (body(String(repeating: "x", count: 65_536)), 413, "M_TOO_LARGE"),
        ] as [(JSON, Int, String)] {
            let answer = await schedule(body, "wrong")
            #expect(answer.status == status && answer.code == code, "\(answer.summary)")
        }
        let stranger = await schedule(body("x"), "1", by: bob)
        #expect(stranger.status == 403 && stranger.code == "M_FORBIDDEN")
        let capability = await client.ask(.GET, "\(base)/capabilities", alice).json["capabilities"]?[
            "org.matrix.msc4140.delayed_events"]
        let most = DelayedEventService.mostScheduled
        #expect(capability == ["max_delay_ms": .integer(longest), "max_scheduled": .integer(Int64(most))])
        #expect(
            await client.ask(.GET, "/_matrix/client/versions", nil).json["unstable_features"]?["org.matrix.msc4140"]
                == true)
        for number in 0..<most { _ = try id(await schedule(body("x", delay: .integer(longest)), "\(number)")) }
        server.clock.advance(by: longest - 1_200_500)
        let full = await schedule(body("x"), "more")
        #expect(full.status == 429 && full.code == "M_LIMIT_EXCEEDED")
        #expect(full.headers.first(name: "Retry-After") == "1201")
        // What was asked for before is answered still.
        #expect(await schedule(body("x"), "1").status == 200)
        await server.close()
    }

    @Test("permission counts when it is sent; by hand it may be tried again, on time it is noted")
    func permission() async throws {
        let bob = await client.register("bob")
        #expect(await client.ask(.POST, "\(base)/join/\(room)", bob, [:]).status == 200)
        let topic = try id(await schedule(body("no", stateKey: ""), "1", type: "m.room.topic", by: bob))
        let refused = await perform("send", topic, by: bob)
        #expect(refused.status == 403 && refused.code == "M_FORBIDDEN")
        let path = "\(unstable)/delayed_events/\(topic)"
        #expect(await client.ask(.GET, path, bob).json["finalised_ts"] == nil)
        server.clock.advance(by: 5_000)
        _ = try await server.homeserver.delayedEvents.run()
        let failed = await client.ask(.GET, path, bob).json
        #expect(failed["error"]?["errcode"] == "M_FORBIDDEN" && failed["finalised_ts"] != nil)
        // It counts as cancelled.
        #expect(await perform("cancel", topic, by: bob).status == 200)
        #expect(await perform("send", topic, by: bob).status == 409)
        await server.close()
    }

    @Test("A20: they are their user's alone, and everything needs a token; guests may use them")
    func authentication() async throws {
        let bob = await client.register("bob")
        let own = try id(await schedule(body("mine"), "1"))
        for action in ["send", "cancel", "restart"] {
            for event in [own, "none"] {
                let answer = await perform(action, event, by: bob)
                #expect(answer.status == 404 && answer.code == "M_NOT_FOUND", "\(action): \(answer.summary)")
            }
            let unsigned = await client.ask(.POST, "\(unstable)/delayed_events/\(own)/\(action)", nil, [:])
            #expect(unsigned.status == 401 && unsigned.code == "M_MISSING_TOKEN", "\(action)")
        }
        #expect(await client.ask(.GET, "\(unstable)/delayed_events/\(own)", bob).code == "M_NOT_FOUND")
        #expect(await client.ask(.GET, "\(unstable)/delayed_events", bob).json == ["delayed_events": []])
        for (method, target) in [
            (.GET, "\(unstable)/delayed_events"), (.GET, "\(unstable)/delayed_events/\(own)"),
            (.PUT, "\(unstable)/rooms/\(room)/delayed_event/m.room.message/2"),
        ] as [(HTTPMethod, String)] {
            #expect(await client.ask(method, target, nil, [:]).status == 401, "\(target)")
        }
        let unknown = await perform("burn", own)
        #expect(unknown.status == 404 && unknown.code == "M_UNRECOGNIZED")
        #expect(await scheduled() == [own])
        let guest = await client.ask(.POST, "\(base)/register?kind=guest", nil, [:]).json["access_token"]?.stringValue
        #expect(await client.ask(.GET, "\(unstable)/delayed_events", try #require(guest)).status == 200)
        await server.close()
    }
}
