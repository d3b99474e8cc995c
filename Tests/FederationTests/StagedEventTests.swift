import HomeserverHTTP
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Events that wait for others")
struct StagedEventTests {
    /// A server with a room, in which another one is that answers nothing; on a simulated thread, where an hour is over soon.
    private func inRoom(
        _ body: @escaping @Sendable (World, HostileServer, HostileServer.Place) async throws -> Void
    ) async throws {
        try await SimulatedThread.run { thread in
            let world = World(seed: 3, thread: thread)
            try await world.begin(count: 1, isTroubled: false)
            let evil = HostileServer("evil.example", on: world.network, clock: world.clock)
            let mallory = evil.user("mallory")
            let (room, server) = (world.rooms[0], world.servers[0].name)
            let place = await world.finish("the other joins") { try await evil.join(room, as: mallory, at: server) }
            world.network.forge { request in
                guard request.destination == evil.name, !request.target.contains("/key/") else { return nil }
                return ServerResponse(status: 404, body: Array("{}".utf8))
            }
            try await body(world, evil, try #require(place))
            await world.close()
            #expect(world.problems == [])
        }
    }

    private func staged(_ world: World) async throws -> Int {
        let home = world.servers[0].server!.homeserver
        let room = try await home.database.room(world.rooms[0])
        return try await home.database.countOfStagedEvents(in: try #require(room).nid)
    }

    /// An event and one upon it.
    private func pair(
        _ number: Int, _ evil: HostileServer, _ place: HostileServer.Place
    ) throws -> (hidden: Event, shown: Event) {
        let mallory = evil.user("mallory")
        let hidden = try evil.event(
            "m.room.message", content: ["body": .string("hidden \(number)")], by: mallory, in: place)
        let shown = try evil.event(
            "m.room.message", content: ["body": .string("shown \(number)")], by: mallory, in: place,
            previous: [hidden.eventID])
        return (hidden, shown)
    }

    @Test("A13 what is kept back is asked for ever more seldom, and given up after an hour")
    func seldom() async throws {
        try await inRoom { world, evil, place in
            let server = world.servers[0].name
            let (_, shown) = try pair(0, evil, place)
            _ = await world.finish("an event is sent") { try await evil.send([shown.root.json], id: "1", to: server) }
            try await world.advance(by: 3_000_000)
            #expect(try await staged(world) == 1)
            let asked = world.network.exchanges.count { $0.target.contains("/get_missing_events/") }
            #expect((3...9).contains(asked), "\(asked)")
            try await world.advance(by: 2_000_000)
            #expect(try await staged(world) == 0)
        }
    }

    @Test("what is kept back from a server that is out of the room doesn't wait any more")
    func outside() async throws {
        try await inRoom { world, evil, place in
            let server = world.servers[0]
            let (_, shown) = try pair(0, evil, place)
            _ = await world.finish("an event is sent") {
                try await evil.send([shown.root.json], id: "1", to: server.name)
            }
            #expect(try await staged(world) == 1)
            let (home, alice) = (server.server!.homeserver, server.people[0].requester)
            _ = await world.finish("everybody leaves") {
                try await home.memberships.leave(world.rooms[0], reason: nil, by: alice)
            }
            try await world.advance(by: 60_000)
            #expect(try await staged(world) == 0)
        }
    }

    @Test("A16 however many wait in vain, one for which there is everything is taken up")
    func behindMany() async throws {
        try await inRoom { world, evil, place in
            let server = world.servers[0].name
            for start in [0, 50, 100] {
                let events = try (start..<start + 50).map { try pair($0, evil, place).shown.root.json }
                _ = await world.finish("events are sent") { try await evil.send(events, id: "e\(start)", to: server) }
            }
            let (late, upon) = try pair(150, evil, place)
            for (id, event) in [("upon", upon), ("late", late)] {
                _ = await world.finish("\(id) is sent") {
                    try await evil.send([event.root.json], id: id, to: server)
                }
            }
            try await world.advance(by: 120_000)
            let home = world.servers[0].server!.homeserver
            let stored = try await home.database.event(upon.eventID)
            #expect(stored?.flags.isDisjoint(with: .hidden) == true)
            #expect(try await staged(world) == 150)
        }
    }
}
