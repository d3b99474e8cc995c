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
}
