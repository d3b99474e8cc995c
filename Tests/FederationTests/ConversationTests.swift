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
}
