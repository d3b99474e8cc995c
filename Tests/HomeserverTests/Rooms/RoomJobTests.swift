import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("What waits for a room's turn")
struct RoomJobTests {
    @Test("is done together, but for what wants a write of its own")
    func alone() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let roomID = try await server.room(of: alice)
        let rooms = server.homeserver.reading.rooms
        let room = try #require(try await rooms.room(roomID))
        let (begun, begin) = AsyncStream<Void>.makeStream()
        let (gate, open) = AsyncStream<Void>.makeStream()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                try await rooms.perform(in: room) { _ in
                    begin.yield()
                    for await _ in gate { return }
                }
            }
            for await _ in begun { break }
            // These gather while the first is at it.
            for number in 0..<20 {
                group.addTask {
                    try await rooms.perform(in: room, alone: number % 4 == 0) { draft in
                        if number % 4 == 0 { #expect(draft.added.isEmpty) }
                        _ = try await draft.append(
                            "m.room.message", content: ["body": .integer(Int64(number))], sender: alice.userID)
                        if number % 4 == 0 { #expect(draft.added.count == 1) }
                    }
                }
            }
            for _ in 0..<200 { await Task.yield() }
            open.yield()
            try await group.waitForAll()
        }
        let report = try await ConsistencyCheck(server.homeserver.database).run()
        #expect(report.isClean && report.events >= 20)
        await server.close()
    }
}
