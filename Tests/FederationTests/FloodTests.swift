import Homeserver
import MatrixCore
import RoostTestSupport
import Testing

@testable import Database

@Suite("Floods of events from a peer")
struct FloodTests {
    @Test("three hundred events as fast as they come, with holes, reach a waiting client whole, once and in order")
    func chain() async throws {
        let scene = try await HostileScene()
        var place = scene.place
        var events: [Event] = []
        for number in 0..<300 {
            let event = try scene.evil.event(
                "m.room.message", content: scene.message("\(number)"), by: scene.mallory, in: place)
            events.append(event)
            place.tip = event
        }
        let all = events
        scene.answer("/get_missing_events/") { request in
            let question = try JSONDocument(parsing: request.body ?? []).root
            func places(_ field: String) -> [Int] {
                let ids = Set(question[field]?.elements.compactMap(\.string) ?? [])
                return all.indices.filter { ids.contains(all[$0].eventID.string) }
            }
            guard let end = places("latest_events").min() else { return nil }
            let start = max(places("earliest_events").filter { $0 < end }.max().map { $0 + 1 } ?? 0, end - 20, 0)
            return ["events": .array(all[start..<end].map(\.root.json))]
        }
        scene.answer("/state_ids/") { _ in nil }
        let server = scene.server, alice = scene.alice, room = scene.room
        var since = try #require(try await server.sync(alice)["next_batch"]?.string)
        var seen: [String] = []
        // Ten at a time, all at once; every third transaction gets lost for good.
        let (evil, name) = (scene.evil, scene.name)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for start in stride(from: 0, to: 300, by: 10) where start % 30 != 10 {
                let part = all[start..<start + 10].map(\.root.json)
                group.addTask { try await evil.send(part, id: "flood\(start)", to: name) }
            }
            try await scene.scene.eventually("everything has come") {
                let answer = try await server.sync(
                    alice, since: since, filter: #"{"room":{"timeline":{"limit":500}}}"#)
                since = answer["next_batch"]?.string ?? since
                let timeline = answer["rooms"]?["join"]?[room.string]?["timeline"]
                #expect(timeline?["limited"]?.bool != true)
                seen += timeline?["events"]?.elements.compactMap { $0["content"]?["body"]?.string } ?? []
                return seen.count >= 300
            }
            try await group.waitForAll()
        }
        #expect(seen == (0..<300).map(String.init))
        #expect(try await server.history(of: room, for: alice, page: 100).reversed() == seen)
        #expect(try await ConsistencyCheck(server.homeserver.database).run().problems == [])
        await scene.scene.close()
    }

    @Test("A13 a room of a thousand forward extremities stalls no other one, and heals by what is said there")
    func extremities() async throws {
        let scene = try await HostileScene()
        let other = try await scene.server.room(of: scene.alice)
        for start in stride(from: 0, to: 1_000, by: 50) {
            let events = try (start..<start + 50).map { number in
                try scene.evil.event(
                    "m.room.message", content: scene.message("fork \(number)"), by: scene.mallory, in: scene.place
                ).root.json
            }
            let answer = try await scene.evil.send(events, id: "fork\(start)", to: scene.name)
            #expect(answer.errors.isEmpty)
            // Between any two of them others get on.
            try await scene.server.say("\(start)", in: other, by: scene.alice)
        }
        let database = scene.server.homeserver.database
        var before = try #require(try await database.room(scene.room)).extremities.count
        #expect(before >= 1_000)
        while before > 1 {
            let said = try await scene.server.say("merge", in: scene.room, by: scene.alice)
            let stored = try #require(try await database.event(said))
            #expect(stored.previous.count <= 20)
            let now = try #require(try await database.room(scene.room)).extremities.count
            #expect(now == max(before - 20, 0) + 1)
            guard now < before else { break }
            before = now
        }
        #expect(before == 1)
        #expect(try await scene.server.history(of: other, for: scene.alice).count == 20)
        await scene.scene.close()
    }
}
