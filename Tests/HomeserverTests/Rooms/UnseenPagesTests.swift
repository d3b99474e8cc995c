import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

/// A15: pages of what the reader doesn't get to see must not look like the end. Here it is what an ignored person has said,
/// more than is looked at for one page.
@Suite("Long stretches of what one doesn't see", .onEachEngine)
struct UnseenPagesTests {
    @Test("A15: pages of events that the reader may not see end neither history, nor search, nor relations")
    func everyPath() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let root = try await server.say("tea first", in: room, by: alice)
        let relation: JSON = ["rel_type": "m.reference", "event_id": .string(root.string)]
        func refer(_ text: String, _ user: Requester, _ transaction: String) async throws {
            _ = try await server.homeserver.sending.send(
                "m.room.message", content: ["body": .string(text), "m.relates_to": relation], to: room,
                transactionID: transaction, by: user)
        }
        try await refer("tea second", alice, "second")
        let unseen = RoomReading.mostExamined + 50
        // Many at a time: the room's queue makes groups of them.
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<unseen { group.addTask { try await refer("tea of bob", bob, "\(number)") } }
            try await group.waitForAll()
        }
        try await refer("tea last", alice, "last")
        let data: JSON = ["ignored_users": ["@bob:localhost": [:]]]
        try await server.homeserver.accountData.set(
            "m.ignored_user_list", to: try JSONDocument(parsing: data.encoded()).root, in: nil, for: alice)

        let reading = server.homeserver.reading
        #expect(try await server.history(of: room, for: alice) == ["tea last", "tea second", "tea first"])
        var forwards: [String] = []
        var from: String?
        repeat {
            let page = try JSONDocument(
                parsing: try await reading.messages(
                    in: room, .init(from: from, to: nil, backwards: false, limit: 5, filter: RoomEventFilter()),
                    for: alice)
            ).root
            forwards += page["chunk"]?.elements.compactMap { $0["content"]?["body"]?.string } ?? []
            from = page["end"]?.string
        } while from != nil
        #expect(forwards == ["tea first", "tea second", "tea last"])

        var related: [String] = []
        var pages = 0
        repeat {
            let page = try JSONDocument(
                parsing: try await reading.relations(
                    of: root, in: room,
                    .init(relType: nil, eventType: nil, from: from, to: nil, backwards: true, limit: 5), for: alice)
            ).root
            related += page["chunk"]?.elements.compactMap { $0["content"]?["body"]?.string } ?? []
            from = page["next_batch"]?.string
            pages += 1
        } while from != nil
        #expect(related == ["tea last", "tea second"] && pages > 1)

        _ = try await server.homeserver.indexing.run()
        var found: [String] = []
        repeat {
            let criteria: JSON = ["search_term": "tea", "order_by": "recent", "filter": ["limit": 2]]
            let request = try SearchRequest(try JSONDocument(parsing: criteria.encoded()).root, nextBatch: from)
            let page = try JSONDocument(parsing: try await server.homeserver.search.search(request, for: alice)).root[
                "search_categories"]?["room_events"]
            found += page?["results"]?.elements.compactMap { $0["result"]?["content"]?["body"]?.string } ?? []
            from = page?["next_batch"]?.string
        } while from != nil
        #expect(found == ["tea last", "tea second", "tea first"])

        // A sync says that there is a gap, and where to go on; the context of an event says so, too.
        let timeline = try await server.sync(alice)["rooms"]?["join"]?[room.string]?["timeline"]
        #expect(timeline?["limited"]?.bool == true && timeline?["prev_batch"]?.string != nil)
        let context = try JSONDocument(
            parsing: try await reading.context(
                of: root, in: room, limit: 10, filter: RoomEventFilter(), for: alice)
        ).root
        var place = context["end"]?.string
        var behind: [String] = []
        repeat {
            let page = try JSONDocument(
                parsing: try await reading.messages(
                    in: room, .init(from: place, to: nil, backwards: false, limit: 5, filter: RoomEventFilter()),
                    for: alice)
            ).root
            behind += page["chunk"]?.elements.compactMap { $0["content"]?["body"]?.string } ?? []
            place = page["end"]?.string
        } while place != nil
        #expect(behind == ["tea last"] || behind == ["tea second", "tea last"])
        await server.close()
    }
}
