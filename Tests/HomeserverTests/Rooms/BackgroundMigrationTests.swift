import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Migrations in the background", .onEachEngine)
struct BackgroundMigrationTests {
    @Test("relations of old events are filled in, in batches, also across a restart")
    func relations() async throws {
        let directory = TemporaryDirectory()
        var server = try await TestServer(directory: directory)
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        var roots: [EventID] = []
        for number in 0..<150 {
            let root = try await server.say("root \(number)", in: room, by: alice)
            _ = try await server.homeserver.sending.send(
                "m.room.message",
                content: [
                    "body": "reply", "m.relates_to": ["rel_type": "m.thread", "event_id": .string(root.string)],
                ],
                to: room, transactionID: "\(number)", by: alice)
            roots.append(root)
        }
        // As a database of the first schema has it.
        var write = Write()
        write.run(Statement("DELETE FROM relations"))
        write.run(Statement("UPDATE events SET flags = 0"))
        write.run(Statement("DELETE FROM background_migrations"))
        write.run(Statement("INSERT INTO background_migrations VALUES ('relations', 0)"))
        try await server.homeserver.database.write(write)
        let relations = try #require(server.homeserver.fillings.first { $0.name == "relations" })
        #expect(try await relations.step())
        await server.close()

        server = try await TestServer(directory: directory, clock: ManualSurroundings(seed: 9))
        let again = try #require(server.homeserver.fillings.first { $0.name == "relations" })
        #expect(try await server.homeserver.database.backgroundMigration(again.name) ?? 0 > 0)
        // The lease of the process that is gone has to end first.
        server.clock.advance(by: 120_000)
        try await again.run()
        #expect(try await server.homeserver.database.backgroundMigration(again.name) == nil)
        for root in roots {
            let shown = try JSONDocument(parsing: try await server.homeserver.reading.event(root, in: room, for: alice))
                .root
            #expect(shown["unsigned"]?["m.relations"]?["m.thread"]?["count"]?.integer == 1)
        }
        await server.close()
    }
}
