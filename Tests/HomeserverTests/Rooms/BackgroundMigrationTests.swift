import Database
import Logging
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
        #expect(try await relations.step() == .more)
        await server.close()

        server = try await TestServer(directory: directory, clock: ManualSurroundings(seed: 9))
        let again = try #require(server.homeserver.fillings.first { $0.name == "relations" })
        #expect(try await server.homeserver.database.backgroundMigration(again.name) ?? 0 > 0)
        // The lease of the process that is gone has to end first; until then it is waited for.
        #expect(try await again.step() == .elsewhere)
        let filling = Task { [server] in
            await BackgroundFilling.runAll(
                [again], server.homeserver.surroundings, .init(label: "t") { _ in SwiftLogNoOpLogHandler() })
        }
        for _ in 0..<10_000 {
            if try await server.homeserver.database.backgroundMigration(again.name) == nil { break }
            server.clock.advance(by: 1_000)
            try await Task.sleep(for: .milliseconds(1))
        }
        filling.cancel()
        await filling.value
        #expect(try await server.homeserver.database.backgroundMigration(again.name) == nil)
        for root in roots {
            let shown = try JSONDocument(parsing: try await server.homeserver.reading.event(root, in: room, for: alice))
                .root
            #expect(shown["unsigned"]?["m.relations"]?["m.thread"]?["count"]?.integer == 1)
        }
        await server.close()
    }

    @Test("a migration that is stopped lets another process go on at once")
    func stopping() async throws {
        let server = try await TestServer()
        _ = try await server.user("alice")
        var write = Write()
        write.run(Statement("DELETE FROM background_migrations"))
        write.run(Statement("INSERT INTO background_migrations VALUES ('user words', 0)"))
        try await server.homeserver.database.write(write)
        func filling(_ node: String) -> BackgroundFilling { .userWords(server.homeserver.fillings[0].rooms, node) }
        #expect(try await filling("first").step() == .more)
        #expect(try await filling("second").step() == .elsewhere)
        let stopped = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await filling("first").run()
        }
        #expect(try await !stopped.value)
        #expect(try await filling("second").run())
        #expect(try await server.homeserver.database.backgroundMigration("user words") == nil)
        await server.close()
    }

    @Test("a migration that fails doesn't hold up the others")
    func failing() async throws {
        let server = try await TestServer()
        var write = Write()
        write.run(Statement("DELETE FROM background_migrations"))
        write.run(Statement("INSERT INTO background_migrations VALUES ('user words', 0), ('broken', 0)"))
        try await server.homeserver.database.write(write)
        let broken = BackgroundFilling(rooms: server.homeserver.fillings[0].rooms, node: "node", name: "broken") {
            _, _ in
            throw DatabaseError.corrupt("on purpose")
        }
        await BackgroundFilling.runAll(
            [broken, .userWords(server.homeserver.fillings[0].rooms, "node")], server.homeserver.surroundings,
            .init(label: "t") { _ in SwiftLogNoOpLogHandler() })
        #expect(try await server.homeserver.database.backgroundMigration("user words") == nil)
        #expect(try await server.homeserver.database.backgroundMigration("broken") == 0)
        await server.close()
    }
}
