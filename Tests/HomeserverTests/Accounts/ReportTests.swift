import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Reports", .onEachEngine)
struct ReportTests {
    private func code(_ work: () async throws -> Void) async -> MatrixError.Code? {
        do {
            try await work()
            return nil
        } catch { return (error as? MatrixError)?.code }
    }

    @Test(
        "rooms may be reported by all, events by those who are in the room and see them, users whether they exist or not"
    )
    func reports() async throws {
        let server = try await TestServer()
        let reports = server.homeserver.reports
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice), other = try await server.room(of: alice)
        let event = try await server.say("spam", in: room, by: alice)
        func report(_ event: EventID, _ room: RoomID, by user: Requester) async -> MatrixError.Code? {
            await code { try await reports.reportEvent(event, in: room, reason: "bad", score: -50, by: user) }
        }
        try await reports.reportRoom(room, reason: "", by: bob)
        let nowhere = try #require(RoomID("!nowhere:localhost")), nothing = try #require(EventID("$nothing"))
        #expect(await code { try await reports.reportRoom(nowhere, reason: "", by: bob) } == .notFound)
        #expect(await report(event, room, by: bob) == .notFound)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        #expect(await report(event, room, by: bob) == nil)
        #expect(await report(event, other, by: alice) == .notFound)
        #expect(await report(nothing, room, by: alice) == .notFound)
        #expect(await report(event, nowhere, by: alice) == .notFound)
        try await server.homeserver.memberships.leave(room, reason: nil, by: bob)
        #expect(await report(event, room, by: bob) == .notFound)
        for user in ["@alice:localhost", "@nobody:localhost", "@a:elsewhere"] {
            try await reports.reportUser(
                try #require(UserID(user)), reason: String(repeating: "x", count: 9_000), by: bob)
        }
        let kept = try await reports.reports(limit: 100)
        #expect(kept.count == 5 && kept.allSatisfy { $0.reporter == bob.nid })
        #expect(kept.compactMap(\.event) == [event] && kept.compactMap(\.score) == [-50])
        #expect(kept.compactMap(\.user).count == 3 && kept.allSatisfy { ($0.reason ?? "").count <= 2_000 })
        await server.close()
    }
}
