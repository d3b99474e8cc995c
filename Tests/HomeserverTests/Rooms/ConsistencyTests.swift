import Database
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Consistency of the database", .onEachEngine)
struct ConsistencyTests {
    private func busyServer() async throws -> TestServer {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        for version in ["1", "6", "11", "12"] {
            let room = try await server.room(of: alice, version: version) { $0.aliasName = "room\(version)" }
            try await server.homeserver.memberships.join(room, reason: nil, by: bob)
            for number in 0..<5 { try await server.say("\(number)", in: room, by: bob) }
            try await server.homeserver.memberships.leave(room, reason: nil, by: bob)
        }
        return server
    }

    @Test("a server's own database is clean")
    func clean() async throws {
        let server = try await busyServer()
        let report = try await ConsistencyCheck(server.homeserver.database).run()
        #expect(report.problems == [])
        #expect(report.rooms == 4 && report.events > 40)
        await server.close()
    }

    /// `$1` stands for bytes that mean nothing.
    @Test(
        "what is wrong is found",
        arguments: [
            "UPDATE rooms SET depth = depth + 1 WHERE room_nid = 1", "DELETE FROM state_nodes WHERE state_nid = 3",
            "UPDATE events SET position = 5 WHERE position = 6", "DELETE FROM events WHERE event_nid = 4",
            "UPDATE events SET json = $1 WHERE event_nid = 3", "UPDATE rooms SET state_nid = 1",
            "UPDATE counters SET next = 3 WHERE name = 'position'", "DELETE FROM memberships WHERE membership = 0",
            "UPDATE state_nodes SET nodes = $1 WHERE state_nid = (SELECT max(state_nid) FROM state_nodes)",
            "DELETE FROM accounts", "DELETE FROM chain_places", "UPDATE events SET event_key = $1 WHERE event_nid = 2",
            "UPDATE rooms SET extremities = $1", "DELETE FROM rooms WHERE room_nid = 2",
        ])
    func damage(statement: String) async throws {
        let server = try await busyServer()
        await server.close()
        let again = try await TestServer(directory: server.directory)
        var write = Write()
        if statement.contains("counters"), EngineKind.current == .postgresql {
            write.run(Statement("SELECT setval('positions', 3)"))
        } else {
            write.run(Statement(statement), statement.contains("$1") ? [.blob([0x7F])] : [])
        }
        try await again.homeserver.database.write(write)
        let report = try await ConsistencyCheck(again.homeserver.database).run()
        #expect(!report.isClean)
        await again.close()
    }
}
