import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Erasure", .onEachEngine)
struct ErasureTests {
    @Test("who was there goes on seeing what an erased user said; who came later doesn't; also after a restart")
    func messages() async throws {
        let directory = TemporaryDirectory(), clock = ManualSurroundings()
        let server = try await TestServer(directory: directory, clock: clock)
        let alice = try await server.user("alice"), bob = try await server.user("bob"),
            carol = try await server.user("carol")
        let room = try await server.room(of: bob)
        try await server.homeserver.memberships.join(room, reason: nil, by: alice)
        let said = try await server.say("a secret", in: room, by: alice)
        try await server.say("an answer", in: room, by: bob)
        try await server.homeserver.profiles.set("displayname", to: "Alice", for: alice)
        _ = try await server.homeserver.deactivation.deactivate("alice", erases: true)
        try await server.homeserver.memberships.join(room, reason: nil, by: carol)

        func check(_ server: TestServer) async throws {
            #expect(try await server.history(of: room, for: bob) == ["an answer", "a secret"])
            #expect(try await server.history(of: room, for: carol) == ["an answer"])
            for (user, isSeen) in [(bob, true), (carol, false)] {
                let bytes = try await server.homeserver.reading.event(said, in: room, for: user)
                let event = try JSONDocument(parsing: bytes).root
                #expect((event["content"]?["body"]?.string == "a secret") == isSeen)
                #expect(event["sender"]?.string == "@alice:localhost")
                let whole = String(
                    decoding: try await server.homeserver.reading.context(
                        of: said, in: room, limit: 20, filter: RoomEventFilter(), for: user), as: UTF8.self)
                #expect(whole.contains("a secret") == isSeen)
                let sync = String(decoding: try await server.sync(user).json.encoded(), as: UTF8.self)
                #expect(sync.contains("a secret") == isSeen)
                #expect(sync.contains("an answer"))
            }
        }
        try await check(server)
        await server.close()
        let again = try await TestServer(directory: directory, clock: clock)
        try await check(again)
        await again.close()
    }

    @Test("the profile goes with the user, and without erasure what was said stays")
    func profile() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.say("kept", in: room, by: alice)
        try await server.homeserver.profiles.set("m.tz", to: "Europe/Berlin", for: alice)
        _ = try await server.homeserver.deactivation.deactivate("alice")
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        #expect(try await server.history(of: room, for: bob) == ["kept"])
        // It can be asked for later too.
        _ = try await server.homeserver.deactivation.deactivate("alice", erases: true)
        #expect(try await server.history(of: room, for: bob) == [])
        #expect(try await server.homeserver.database.profileFields(of: alice.nid).isEmpty)
        #expect(try await server.homeserver.database.account(alice.nid)?.displayName == nil)
        await server.close()
    }
}
