import MatrixCore
import Testing

@testable import Database

@Suite("Leases", .onEachEngine)
struct LeaseTests {
    @Test("one holds a lease at a time, and who was overtaken can write nothing under it")
    func fencing() async throws {
        let test = try await TestDatabase()
        let database = test.database
        let first = try #require(try await database.lease("work", holder: "a", now: 1_000, duration: 500))
        #expect(try await database.lease("work", holder: "b", now: 1_499, duration: 500) == nil)
        #expect(try await database.lease("work", holder: "a", now: 1_400, duration: 500) == first)
        #expect(try await database.lease("work", holder: "b", now: 1_899, duration: 500) == nil)
        let second = try #require(try await database.lease("work", holder: "b", now: 1_900, duration: 500))
        #expect(second.token > first.token)
        func write(under lease: Lease, _ name: String) async throws {
            var write = Write()
            write.require(lease)
            write.run(WritingTests.insert, .text(name), .blob([]))
            try await database.write(write)
        }
        await #expect(throws: DatabaseError.self) { try await write(under: first, "overtaken") }
        try await write(under: second, "holder")
        #expect(try await database.setting("overtaken") == nil)
        #expect(try await database.setting("holder") == [])
        var write = Write()
        write.release(second)
        try await database.write(write)
        let third = try #require(try await database.lease("work", holder: "a", now: 1_901, duration: 500))
        #expect(third.token > second.token)
        await test.close()
    }

    @Test("of many who want a lease at once, one gets it")
    func race() async throws {
        let test = try await TestDatabase()
        let database = test.database
        let got = try await withThrowingTaskGroup(of: Bool.self) { group in
            for number in 0..<20 {
                group.addTask { try await database.lease("work", holder: "\(number)", now: 1, duration: 10) != nil }
            }
            return try await group.reduce(0) { $0 + ($1 ? 1 : 0) }
        }
        #expect(got == 1)
        await test.close()
    }

    @Test("whoever has a room's turn is the only one to write into it, until they have or their time is over")
    func turns() async throws {
        let test = try await TestDatabase()
        let database = test.database
        let before = RoomRecord(nid: RoomNID(1), roomID: RoomID(unchecked: "!room:example.org"), version: "11")
        var write = Write()
        write.insert(before, newest: .null, bump: .null)
        try await database.write(write)
        var record = before
        func move(by node: String, at now: Int64) async throws {
            let read = record
            record.timelineVersion += 1
            var write = Write()
            write.update(record, readAs: read, by: node, at: now)
            do { try await database.write(write) } catch {
                record = read
                throw error
            }
        }
        func take(_ node: String, at now: Int64) async throws {
            var write = Write()
            write.takeTurn(in: before.nid, by: node, at: now, until: now + 100)
            try await database.write(write)
        }
        try await move(by: "a", at: 1_000)
        try await take("b", at: 1_000)
        try await take("c", at: 1_050)
        for node in ["a", "c"] {
            await #expect(throws: DatabaseError.self) { try await move(by: node, at: 1_100) }
        }
        try await move(by: "b", at: 1_100)
        try await move(by: "a", at: 1_100)
        try await take("b", at: 1_200)
        await #expect(throws: DatabaseError.self) { try await move(by: "a", at: 1_300) }
        // The one who had it is gone.
        try await move(by: "a", at: 1_301)
        await test.close()
    }
}
