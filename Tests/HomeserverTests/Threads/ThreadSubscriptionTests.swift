import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Thread subscriptions", .onEachEngine)
struct ThreadSubscriptionTests {
    private func reply(_ server: TestServer, _ room: RoomID, to root: EventID, by user: Requester) async throws
        -> EventID
    {
        try await server.homeserver.sending.send(
            "m.room.message",
            content: [
                "msgtype": "m.text", "body": "reply",
                "m.relates_to": ["rel_type": "m.thread", "event_id": .string(root.string)],
            ], to: room,
            transactionID: server.clock.surroundings.randomBytes(8).map(String.init).joined(separator: "."),
            by: user)
    }

    @Test("one subscribes, unsubscribes, and is not subscribed again by what came before")
    func ordering() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        let service = server.homeserver.threadSubscriptions
        let root = try await server.say("root", in: room, by: alice)
        let other = try await server.say("other", in: room, by: alice)
        let first = try await reply(server, room, to: root, by: alice)
        func code(_ act: () async throws -> Void) async -> String? {
            do { try await act() } catch let error as MatrixError { return error.code.name } catch {}
            return nil
        }
        #expect(await code { _ = try await service.isAutomatic(root, in: room, for: alice) } == "M_NOT_FOUND")
        #expect(
            await code { try await service.subscribe(to: root, in: room, because: other, by: alice) }
                == "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD")
        // Who may not read the room learns nothing of its threads.
        #expect(await code { try await service.subscribe(to: root, in: room, because: nil, by: bob) } == "M_NOT_FOUND")
        #expect(await code { try await service.unsubscribe(from: root, in: room, by: bob) } == "M_NOT_FOUND")
        try await service.subscribe(to: root, in: room, because: first, by: alice)
        #expect(try await service.isAutomatic(root, in: room, for: alice))
        try await service.subscribe(to: root, in: room, because: nil, by: alice)
        #expect(try await !service.isAutomatic(root, in: room, for: alice))
        // What the user wants outlasts what clients do of themselves.
        try await service.subscribe(to: root, in: room, because: first, by: alice)
        #expect(try await !service.isAutomatic(root, in: room, for: alice))
        try await service.unsubscribe(from: root, in: room, by: alice)
        try await service.unsubscribe(from: root, in: room, by: alice)
        #expect(
            await code { try await service.subscribe(to: root, in: room, because: first, by: alice) }
                == "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION")
        let second = try await reply(server, room, to: root, by: alice)
        // What came before the user said so once more doesn't count either.
        try await service.unsubscribe(from: root, in: room, by: alice)
        #expect(
            await code { try await service.subscribe(to: root, in: room, because: second, by: alice) }
                == "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION")
        let third = try await reply(server, room, to: root, by: alice)
        try await service.subscribe(to: root, in: room, because: third, by: alice)
        #expect(try await service.isAutomatic(root, in: room, for: alice))
        await server.close()
    }

    @Test("what the user wants isn't lost to what clients do of themselves at the same time")
    func concurrency() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        let service = server.homeserver.threadSubscriptions
        for _ in 0..<5 {
            let root = try await server.say("root", in: room, by: alice)
            let cause = try await reply(server, room, to: root, by: alice)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for device in 0..<8 {
                    group.addTask {
                        try await service.subscribe(
                            to: root, in: room, because: device == 3 ? nil : cause, by: alice)
                    }
                }
                try await group.waitForAll()
            }
            #expect(try await !service.isAutomatic(root, in: room, for: alice))
        }
        await server.close()
    }

    @Test("sliding sync tells the latest changes, and the rest is found by going back")
    func sync() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        let service = server.homeserver.threadSubscriptions
        let name = "io.element.msc4308.thread_subscriptions"
        func body(_ limit: Int64) -> JSON { ["extensions": [name: ["enabled": true, "limit": .integer(limit)]]] }
        var roots: [EventID] = []
        for number in 0..<5 { roots.append(try await server.say("\(number)", in: room, by: alice)) }
        var pos = try #require(try await server.slidingSync(alice, body(2))["pos"]?.string)
        let start = pos
        for root in roots { try await service.subscribe(to: root, in: room, because: nil, by: alice) }
        try await service.unsubscribe(from: roots[4], in: room, by: alice)
        let answer = try await server.slidingSync(alice, body(2), pos: pos)
        pos = try #require(answer["pos"]?.string)
        let told = try #require(answer["extensions"]?[name])
        #expect(told["subscribed"]?[room.string]?.members.map(\.key) == [roots[3].string])
        #expect(told["unsubscribed"]?[room.string]?.members.map(\.key) == [roots[4].string])
        #expect(told["subscribed"]?[room.string]?[roots[3].string]?["automatic"]?.bool == false)
        var from = told["prev_batch"]?.string
        var found: [String] = []
        while let token = from {
            let page = try await service.page(from: token, to: start, limit: 2, for: alice)
            found += page["subscribed"]?[room.string]?.objectValue?.map(\.key) ?? []
            from = page["end"]?.stringValue
        }
        #expect(Set(found) == Set(roots[..<3].map(\.string)))
        #expect(found.count == 3)
        #expect(try await server.slidingSync(alice, body(2), pos: pos)["extensions"]?[name] == nil)
        // A waiting sync wakes.
        let here = pos
        let waiting = Task { try await server.slidingSync(alice, body(2), pos: here, timeout: 30_000) }
        try await service.unsubscribe(from: roots[0], in: room, by: alice)
        #expect(try await waiting.value["extensions"]?[name]?["unsubscribed"]?[room.string]?.count == 1)
        // A client that begins is told what there is, and not what there was.
        let anew = try await server.slidingSync(alice, body(100))["extensions"]?[name]
        #expect(anew?["subscribed"]?[room.string]?.count == 3)
        #expect(anew?["unsubscribed"]?.count == 0)
        // What has ended since doesn't keep it from what there is.
        let first = try await server.slidingSync(alice, body(1))["extensions"]?[name]
        #expect(first?["subscribed"]?[room.string]?.count == 1)
        #expect(first?["prev_batch"]?.string != nil)
        await server.close()
    }
}
