import Database
import Logging
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Delayed events", .onEachEngine)
struct DelayedEventTests {
    private func request(
        _ text: String, delay: Int64 = 5_000, transaction: String? = nil, stateKey: String? = nil
    ) -> DelayedEventService.Request {
        .init(
            type: stateKey == nil ? "m.room.message" : "m.room.topic", stateKey: stateKey,
            content: stateKey == nil ? ["msgtype": "m.text", "body": .string(text)] : ["topic": .string(text)],
            delay: delay, transactionID: transaction ?? text)
    }

    @Test("each is sent once when its time has come, in the order of the times, and also after a restart")
    func onTime() async throws {
        let directory = TemporaryDirectory()
        let clock = ManualSurroundings()
        var server = try await TestServer(directory: directory, clock: clock)
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let delayed = server.homeserver.delayedEvents
        let late = try await delayed.schedule(request("late", delay: 9_000), in: room, by: alice)
        let early = try await delayed.schedule(request("early", delay: 5_000), in: room, by: alice)
        _ = try await delayed.schedule(request("topic", delay: 6_000, stateKey: ""), in: room, by: alice)
        #expect(try await delayed.schedule(request("early", delay: 5_000), in: room, by: alice) == early)
        #expect(try await delayed.events(for: alice).compactMap { $0["delay_id"]?.stringValue }.first == early)
        clock.advance(by: 4_999)
        #expect(try await delayed.run() == 0)
        #expect(try await server.history(of: room, for: bob).isEmpty)
        clock.advance(by: 1)
        #expect(try await delayed.run() == 1)
        #expect(try await delayed.run() == 0)
        #expect(try await server.history(of: room, for: bob) == ["early"])
        await server.close()

        clock.advance(by: 60_000)
        server = try await TestServer(directory: directory, clock: clock)
        #expect(try await server.homeserver.delayedEvents.run() == 2)
        #expect(try await server.history(of: room, for: bob) == ["late", "early"])
        let sent = try await server.homeserver.delayedEvents.event(late, for: alice)
        let eventID = try #require(sent["event_id"]?.stringValue)
        #expect(sent["finalised_ts"]?.integerValue == clock.now)
        #expect(try await server.homeserver.delayedEvents.events(for: alice).isEmpty)
        // Its sender learns which it was, and nobody else.
        func unsigned(_ user: Requester) async throws -> JSONView? {
            try JSONDocument(
                parsing: try await server.homeserver.reading.event(EventID(unchecked: eventID), in: room, for: user)
            ).root["unsigned"]
        }
        #expect(try await unsigned(alice)?["org.matrix.msc4140.delay_id"]?.string == late)
        #expect(try await unsigned(alice)?["transaction_id"] == nil)
        #expect(try await unsigned(bob)?["org.matrix.msc4140.delay_id"] == nil)
        await #expect(throws: MatrixError.self) {
            try await server.homeserver.delayedEvents.event(late, for: bob)
        }
        await server.close()
    }

    @Test("one whose time has come when its user has said much is sent all the same")
    func limited() async throws {
        let server = try await TestServer { $0.rateLimits.enabled = true }
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        let delayed = server.homeserver.delayedEvents
        _ = try await delayed.schedule(request("leaving", delay: 5_000), in: room, by: alice)
        let other = try await delayed.schedule(request("other", delay: 90_000), in: room, by: alice)
        server.clock.advance(by: 5_000)
        do {
            while true { try server.homeserver.rateLimits.take(.message, for: alice.userID.string) }
        } catch is MatrixError {}
        #expect(try await delayed.run() == 1)
        #expect(try await server.history(of: room, for: alice) == ["leaving"])
        // Who has it sent before waits like for any other message.
        let error = await #expect(throws: MatrixError.self) { try await delayed.perform(.send, on: other, by: alice) }
        #expect(error?.status == 429)
        await server.close()
    }

    @Test("the job wakes by itself, for what is scheduled before and after it began")
    func waking() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        _ = try await server.homeserver.delayedEvents.schedule(request("first", delay: 50_000), in: room, by: alice)
        try await server.homeserver.delayedEvents.start()
        _ = try await server.homeserver.delayedEvents.schedule(request("second", delay: 1_000), in: room, by: alice)
        var since = try #require(try await server.sync(alice)["next_batch"]?.string)
        var bodies: [String] = []
        // Time passes whenever the job has set its timer anew.
        let ticking = Task {
            while !Task.isCancelled {
                server.clock.advance(by: 500)
                await Task.yield()
            }
        }
        while bodies.count < 2 {
            let answer = try await server.sync(alice, since: since, timeout: 300_000)
            since = try #require(answer["next_batch"]?.string)
            bodies +=
                answer["rooms"]?["join"]?[room.string]?["timeline"]?["events"]?.elements.compactMap {
                    $0["content"]?["body"]?.string
                } ?? []
        }
        ticking.cancel()
        #expect(bodies == ["second", "first"])
        await server.close()
    }

    @Test("a client may send it now, cancel it, or begin anew; what is done stays done")
    func managing() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        let delayed = server.homeserver.delayedEvents
        let sent = try await delayed.schedule(request("sent"), in: room, by: alice)
        let cancelled = try await delayed.schedule(request("cancelled"), in: room, by: alice)
        let renewed = try await delayed.schedule(request("renewed"), in: room, by: alice)
        for action in [DelayedEventService.Action.send, .cancel, .restart] {
            let failure = await #expect(throws: MatrixError.self) {
                try await delayed.perform(action, on: sent, by: bob)
            }
            #expect(failure?.code == .notFound)
        }
        try await delayed.perform(.send, on: sent, by: alice)
        try await delayed.perform(.send, on: sent, by: alice)
        try await delayed.perform(.cancel, on: cancelled, by: alice)
        try await delayed.perform(.cancel, on: cancelled, by: alice)
        for (action, id) in [
            (DelayedEventService.Action.cancel, sent), (.restart, sent), (.send, cancelled), (.restart, cancelled),
        ] {
            let failure = await #expect(throws: MatrixError.self) {
                try await delayed.perform(action, on: id, by: alice)
            }
            #expect(failure?.status == 409, "\(action)")
        }
        server.clock.advance(by: 4_000)
        try await delayed.perform(.restart, on: renewed, by: alice)
        server.clock.advance(by: 4_000)
        #expect(try await delayed.run() == 0)
        server.clock.advance(by: 1_000)
        #expect(try await delayed.run() == 1)
        #expect(try await server.history(of: room, for: alice) == ["renewed", "sent"])
        #expect(try await delayed.event(cancelled, for: alice)["error"] == nil)
        await server.close()
    }

    @Test("who may not send it then doesn't, and learns why; asked to send it now, it stays scheduled")
    func refusals() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        let delayed = server.homeserver.delayedEvents
        await #expect(throws: MatrixError.self) {
            try await delayed.schedule(request("stranger"), in: room, by: bob)
        }
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let id = try await delayed.schedule(request("kicked"), in: room, by: bob)
        try await server.homeserver.memberships.remove(bob.userID, from: room, .kick, reason: nil, by: alice)
        let failure = await #expect(throws: MatrixError.self) { try await delayed.perform(.send, on: id, by: bob) }
        #expect(failure?.code == .forbidden)
        #expect(try await delayed.event(id, for: bob)["finalised_ts"] == nil)
        server.clock.advance(by: 5_000)
        #expect(try await delayed.run() == 1)
        let ended = try await delayed.event(id, for: bob)
        let reason = try #require(ended["error"])
        #expect(
            try JSONDocument(parsing: reason.encoded()).root["errcode"]?.string == "M_FORBIDDEN")
        #expect(ended["event_id"] == nil)
        // An account that has ended sends nothing more.
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        _ = try await delayed.schedule(request("gone"), in: room, by: bob)
        _ = try await server.homeserver.deactivation.deactivate("bob")
        server.clock.advance(by: 5_000)
        #expect(try await delayed.run() == 1)
        #expect(try await server.history(of: room, for: alice).isEmpty)
        await server.close()
    }

    @Test("delays, their number, and what is kept of them are bounded")
    func bounds() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        let delayed = server.homeserver.delayedEvents
        for (delay, code) in [
            (Int64(0), MatrixError.Code.invalidParam), (-1, .invalidParam),
            (DelayedEventService.longestDelay + 1, .forbidden),
        ] {
            let failure = await #expect(throws: MatrixError.self) {
                try await delayed.schedule(request("x", delay: delay), in: room, by: alice)
            }
            #expect(failure?.code == code)
        }
        var first = ""
        for number in 0..<DelayedEventService.mostScheduled {
            let id = try await delayed.schedule(request("\(number)"), in: room, by: alice)
            if number == 0 { first = id }
        }
        let failure = await #expect(throws: MatrixError.self) {
            try await delayed.schedule(request("one more"), in: room, by: alice)
        }
        #expect(failure?.code == .limitExceeded)
        #expect(failure?.retryAfterMS == 5_000)
        try await delayed.perform(.cancel, on: first, by: alice)
        _ = try await delayed.schedule(request("one more"), in: room, by: alice)
        server.clock.advance(by: 8 * 86_400_000)
        #expect(try await delayed.run() == DelayedEventService.mostScheduled)
        await #expect(throws: MatrixError.self) { try await delayed.event(first, for: alice) }
        // With the room goes what was to be sent into it.
        let last = try await delayed.schedule(request("last"), in: room, by: alice)
        try await server.homeserver.purging.purge(room)
        await #expect(throws: MatrixError.self) { try await delayed.event(last, for: alice) }
        await server.close()
    }

    @Test("of two nodes one sends, and the other goes on when it is gone")
    func nodes() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        let homeserver = server.homeserver
        _ = try await homeserver.delayedEvents.schedule(request("once"), in: room, by: alice)
        server.clock.advance(by: 5_000)
        // Another node holds the lease, and doesn't come to send anything.
        let lease = try await homeserver.database.lease(
            "delayed events", holder: "another", now: server.clock.now, duration: 20_000)
        #expect(lease != nil)
        #expect(try await homeserver.delayedEvents.run() == nil)
        server.clock.advance(by: 20_000)
        #expect(try await homeserver.delayedEvents.run() == 1)
        // Back again, the other one can do no harm.
        var write = Write()
        write.require(try #require(lease))
        let late = write
        await #expect(throws: DatabaseError.self) { try await homeserver.database.write(late) }
        // Two that look at the same time send each event once.
        for number in 0..<20 {
            _ = try await homeserver.delayedEvents.schedule(request("both \(number)"), in: room, by: alice)
        }
        server.clock.advance(by: 5_000)
        let other = DelayedEventService(
            rooms: homeserver.reading.rooms, rateLimits: homeserver.rateLimits, node: "second",
            logger: Logger(label: "second"))
        async let one = homeserver.delayedEvents.run()
        async let two = other.run()
        _ = try await (one, two)
        _ = try await other.run()
        #expect(
            try await server.history(of: room, for: alice).sorted()
                == (["once"] + (0..<20).map { "both \($0)" }).sorted())
        await server.close()
    }
}
