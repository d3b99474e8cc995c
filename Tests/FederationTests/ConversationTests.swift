import Homeserver
import MatrixCore
import RoostTestSupport
import Testing

@testable import Database

@Suite("Conversations between servers")
struct ConversationTests {
    @Test("a user joins a room of another server, and both talk", arguments: RoomVersion.all.map(\.identifier))
    func joinAndTalk(version: String) async throws {
        let scene = try await FederationScene(2)
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let room = try await scene[0].room(of: alice, version: version)
        try await scene[0].say("before", in: room, by: alice)
        try await scene[1].homeserver.memberships.join(
            room, reason: nil, via: [ServerName(unchecked: "hs1.example")], by: bob)
        try await scene[0].say("hello", in: room, by: alice)
        try await scene[1].say("good day", in: room, by: bob)
        let all = ["before", "hello", "good day"]
        try await scene.eventually("alice reads everything") {
            Set(try await scene.texts(in: room, for: alice, on: scene[0])) == Set(all)
        }
        try await scene.eventually("bob reads everything") {
            Set(try await scene.texts(in: room, for: bob, on: scene[1])) == Set(all)
        }
        await scene.close()
    }

    @Test("what was said in a server's first moments is told also if it crashes before anybody has taken it")
    func firstMoments() async throws {
        let held = HeldTransports()
        let scene = try await FederationScene(2, wrap: { held.add($0) { $0.target.contains("/v1/send/") } })
        held[1].letGo()
        let first = scene[0].configuration.serverName
        let alice = try await scene[0].user("alice"), bob = try await scene[1].user("bob")
        let room = try await scene[0].room(of: alice)
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [first], by: bob)
        try await scene[0].say("hello", in: room, by: alice)
        // The first one goes no further than this.
        let again = try await TestServer(
            directory: scene[0].directory, clock: ManualSurroundings(seed: 9, now: scene[0].clock.now),
            transport: scene.network.transport(of: first)
        ) { $0.serverName = first }
        scene.network.connect(again.homeserver)
        try await again.homeserver.startJobs()
        try await scene.eventually("bob reads it") {
            again.clock.advance(by: 200)
            return try await scene.texts(in: room, for: bob, on: scene[1]).contains("hello")
        }
        await again.close()
        held[0].letGo()
        await scene.close()
    }
}
