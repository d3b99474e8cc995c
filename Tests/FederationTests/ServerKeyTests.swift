import MatrixCore
import RoostTestSupport
import Testing

@testable import Database
@testable import Homeserver

@Suite("Keys of other servers")
struct ServerKeyTests {
    @Test("what comes while a server's keys are being fetched waits for them, instead of being refused")
    func together() async throws {
        let held = HeldTransports()
        let scene = try await FederationScene(
            1,
            wrap: { held.add($0) { $0.target == "/_matrix/key/v2/server" } })
        let alice = try await scene[0].user("alice")
        _ = try await scene[0].room(of: alice)
        let evil = HostileServer("new.example", on: scene.network, clock: scene[0].clock)
        let name = scene[0].configuration.serverName
        let statuses = try await withThrowingTaskGroup(of: Int.self) { group in
            for number in 0..<5 {
                group.addTask { try await evil.send([], id: "together\(number)", to: name).status }
            }
            try await scene.eventually("the keys are asked for") { !held[0].held.isEmpty }
            // The others come to the same place meanwhile.
            for _ in 0..<200 { await Task.yield() }
            held[0].letGo()
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(statuses == [200, 200, 200, 200, 200])
        #expect(held[0].held.count == 1)
        await scene.close()
    }

    @Test("a key that somebody else has had come while others were waited for is as good")
    func meanwhile() async throws {
        let held = HeldTransports()
        let scene = try await FederationScene(
            1, wrap: { held.add($0) { $0.target == "/_matrix/key/v2/server" && $0.destination.string < "s26" } })
        let keys = scene[0].homeserver.federation.keys
        // More than are asked at once: the last one has to wait.
        let servers = (10...26).map { HostileServer("s\($0).example", on: scene.network, clock: scene[0].clock) }
        let room = RoomID(unchecked: "!room:s10.example")
        let events = try servers.map { server in
            try EventTemplate(
                version: .v11, roomID: room, sender: server.user("u"), type: "m.room.message", content: [:],
                prevEvents: [], authEvents: [], depth: 1, originServerTS: scene[0].clock.now
            ).signed(by: server.key, as: server.name)
        }
        async let lookup = keys.keys(for: events)
        try await scene.eventually("the first ones are asked") { held[0].held.count == 16 }
        let last = try #require(servers.last)
        _ = try await keys.key(last.key.keyID, of: last.name, at: scene[0].clock.now)
        held[0].letGo()
        let find = try await lookup
        for server in servers { #expect(find(server.name, server.key.keyID) != nil) }
        await scene.close()
    }

    @Test("notaries that don't know each other yet vouch for a server that is gone, and wait for nobody in a circle")
    func notaries() async throws {
        let scene = try await FederationScene(4) { configuration in
            configuration.federation.keyServers = [
                ServerName(unchecked: "hs2.example"), ServerName(unchecked: "hs3.example"),
            ]
        }
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let carol = try await scene[2].user("carol")
        let dave = try await scene[3].user("dave")
        let names = scene.servers.map(\.configuration.serverName)
        let room = try await scene[0].room(of: alice)
        for (server, user) in [(scene[1], bob), (scene[2], carol)] {
            try await server.homeserver.memberships.join(room, reason: nil, via: [names[0]], by: user)
        }
        try await scene.eventually("everybody is there") {
            String(decoding: try await scene[1].homeserver.reading.state(of: room, for: bob), as: UTF8.self)
                .contains("@carol:hs3.example")
        }
        for index in 1...2 {
            try await scene.eventually("all members are known") {
                try await scene[index].homeserver.database.room(room)?.partialJoin == nil
            }
        }
        scene.network.cut(names[0])
        try await scene[3].homeserver.memberships.join(room, reason: nil, via: [names[2]], by: dave)
        try await scene.eventually("everybody is known") {
            let state = try await scene[3].homeserver.reading.state(of: room, for: dave)
            let text = String(decoding: state, as: UTF8.self)
            return [alice, bob, carol].allSatisfy { text.contains($0.userID.string) }
        }
        await scene.close()
    }
}
