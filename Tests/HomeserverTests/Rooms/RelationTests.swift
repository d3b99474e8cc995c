import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Relations between events", .onEachEngine)
struct RelationTests {
    private let server: TestServer
    private let alice: Requester
    private let bob: Requester
    private let room: RoomID

    init() async throws {
        server = try await TestServer()
        alice = try await server.user("alice")
        bob = try await server.user("bob")
        room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
    }

    @discardableResult
    private func send(
        _ body: String, _ relation: JSON, type: String = "m.room.message", by user: Requester
    ) async throws -> EventID {
        server.clock.advance(by: 10)
        return try await server.homeserver.sending.send(
            type,
            content: [
                "msgtype": "m.text", "body": .string(body), "m.relates_to": relation,
                "m.new_content": ["body": .string(body)],
            ], to: room,
            transactionID: server.clock.surroundings.randomBytes(8).map(String.init).joined(), by: user)
    }

    private func shown(_ event: EventID, to user: Requester) async throws -> JSON {
        try JSONDocument(parsing: try await server.homeserver.reading.event(event, in: room, for: user)).root.json
    }

    private func relations(_ event: EventID, to user: Requester) async throws -> JSON? {
        try await shown(event, to: user)["unsigned"]?["m.relations"]
    }

    private func relation(_ type: String, _ event: EventID, key: String? = nil) -> JSON {
        var relation: JSON = ["rel_type": .string(type), "event_id": .string(event.string)]
        if let key { relation["key"] = .string(key) }
        return relation
    }

    @Test("an event shows its newest edit, by its own sender only, until that is redacted")
    func edits() async throws {
        let event = try await server.say("original", in: room, by: alice)
        #expect(try await relations(event, to: bob) == nil)
        try await send("first edit", relation("m.replace", event), by: alice)
        let second = try await send("second edit", relation("m.replace", event), by: alice)
        try await send("not yours", relation("m.replace", event), by: bob)
        let edit = try await relations(event, to: bob)?["m.replace"]
        #expect(edit?["content"]?["body"] == "second edit" && edit?["event_id"]?.stringValue == second.string)
        #expect(try await shown(event, to: bob)["content"]?["body"] == "original")
        _ = try await server.homeserver.sending.send(
            "m.room.redaction", content: [:], to: room, transactionID: "r", redacts: second, by: alice)
        #expect(try await relations(event, to: bob)?["m.replace"]?["content"]?["body"] == "first edit")
        await server.close()
    }

    @Test("A20: what is said in another room about an event neither shows with it nor is told of it")
    func otherRooms() async throws {
        let event = try await server.say("original", in: room, by: alice)
        let other = try await server.room(of: alice)
        for (number, type) in ["m.replace", "m.thread", "m.reference", "m.annotation"].enumerated() {
            _ = try await server.homeserver.sending.send(
                "m.room.message",
                content: [
                    "body": "elsewhere", "m.new_content": ["body": "elsewhere"],
                    "m.relates_to": relation(type, event, key: "x"),
                ], to: other, transactionID: "\(number)", by: alice)
        }
        for user in [alice, bob] {
            #expect(try await relations(event, to: user)?.objectValue?.isEmpty ?? true)
            let page = try await server.homeserver.reading.relations(
                of: event, in: room,
                .init(
                    relType: nil, eventType: nil, from: nil, to: nil, backwards: true, limit: 10, recurses: true),
                for: user)
            #expect(!contains(page, "elsewhere"))
            let threads = try await server.homeserver.reading.threads(
                in: other, onlyOwn: false, from: nil, limit: 10, for: alice)
            #expect(!contains(threads, "original"))
        }
        await server.close()
    }

    @Test("a replacement needs new content, replaces no other one, and is of its original's type")
    func validEdits() async throws {
        let event = try await server.say("original", in: room, by: alice)
        let edit = try await send("edit", relation("m.replace", event), by: alice)
        _ = try await server.homeserver.sending.send(
            "m.room.message", content: ["body": "* nothing", "m.relates_to": relation("m.replace", event)], to: room,
            transactionID: "1", by: alice)
        try await send("another", relation("m.replace", event), type: "org.example.other", by: alice)
        try await send("edit of the edit", relation("m.replace", edit), by: alice)
        #expect(try await relations(event, to: bob)?["m.replace"]?["event_id"]?.stringValue == edit.string)
        #expect(try await relations(edit, to: bob)?["m.replace"] == nil)
        await server.close()
    }

    @Test("a thread tells how long it is, what came last, and whether one takes part")
    func threads() async throws {
        let root = try await server.say("root", in: room, by: alice),
            other = try await server.say("other", in: room, by: bob)
        var last = root
        for number in 0..<3 { last = try await send("reply \(number)", relation("m.thread", root), by: bob) }
        let thread = try await relations(root, to: bob)?["m.thread"]
        #expect(thread?["count"] == 3 && thread?["current_user_participated"] == true)
        #expect(thread?["latest_event"]?["event_id"]?.stringValue == last.string)
        let carol = try await server.user("carol")
        try await server.homeserver.memberships.join(room, reason: nil, by: carol)
        #expect(try await relations(root, to: carol)?["m.thread"]?["current_user_participated"] == false)
        try await send("elsewhere", relation("m.thread", other), by: alice)
        func list(_ user: Requester, own: Bool = false, from: String? = nil, limit: Int = 10) async throws -> JSONView {
            try JSONDocument(
                parsing: try await server.homeserver.reading.threads(
                    in: room, onlyOwn: own, from: from, limit: limit, for: user)
            ).root
        }
        func roots(_ page: JSONView) -> [String] { page["chunk"]?.elements.compactMap { $0["event_id"]?.string } ?? [] }
        #expect(roots(try await list(alice)) == [other.string, root.string])
        #expect(roots(try await list(carol, own: true)).isEmpty)
        let first = try await list(alice, limit: 1)
        #expect(roots(first) == [other.string])
        #expect(roots(try await list(alice, from: first["next_batch"]?.string)) == [root.string])
        await server.close()
    }

    @Test("children are listed by type, in pages, in both directions")
    func listing() async throws {
        let parent = try await server.say("parent", in: room, by: alice)
        var replies: [String] = []
        for number in 0..<7 {
            replies.append(try await send("\(number)", relation("m.thread", parent), by: bob).string)
            try await send("", relation("m.annotation", parent, key: "\(number)"), type: "m.reaction", by: bob)
        }
        func list(_ relType: String?, _ eventType: String?, backwards: Bool, limit: Int) async throws -> [String] {
            var found: [String] = []
            var from: String?
            repeat {
                let page = try JSONDocument(
                    parsing: try await server.homeserver.reading.relations(
                        of: parent, in: room,
                        .init(
                            relType: relType, eventType: eventType, from: from, to: nil, backwards: backwards,
                            limit: limit),
                        for: alice)
                ).root
                found += page["chunk"]?.elements.compactMap { $0["event_id"]?.string } ?? []
                from = page["next_batch"]?.string
            } while from != nil
            return found
        }
        for limit in [1, 2, 3, 50] {
            #expect(try await list("m.thread", nil, backwards: false, limit: limit) == replies)
            #expect(try await list("m.thread", "m.room.message", backwards: true, limit: limit) == replies.reversed())
            #expect(try await list(nil, nil, backwards: true, limit: limit).count == 14)
        }
        #expect(try await list("m.thread", "m.reaction", backwards: true, limit: 5).isEmpty)
        await #expect(throws: MatrixError.self) {
            try await server.homeserver.reading.relations(
                of: EventID("$none")!, in: room,
                .init(relType: nil, eventType: nil, from: nil, to: nil, backwards: true, limit: 5), for: alice)
        }
        await server.close()
    }

    @Test("one can't react twice in the same way")
    func annotations() async throws {
        let event = try await server.say("nice", in: room, by: alice)
        try await send("", relation("m.annotation", event, key: "👍"), type: "m.reaction", by: bob)
        let error = await #expect(throws: MatrixError.self) {
            try await send("", relation("m.annotation", event, key: "👍"), type: "m.reaction", by: bob)
        }
        #expect(error?.code == .duplicateAnnotation)
        try await send("", relation("m.annotation", event, key: "🎉"), type: "m.reaction", by: bob)
        try await send("", relation("m.annotation", event, key: "👍"), type: "m.reaction", by: alice)
        await server.close()
    }

    @Test("references are told by their IDs")
    func references() async throws {
        let event = try await server.say("referred to", in: room, by: alice)
        let first = try await send("a", relation("m.reference", event), by: bob)
        #expect(
            try await relations(event, to: alice) == ["m.reference": ["chunk": [["event_id": .string(first.string)]]]])
        let page = try JSONDocument(
            parsing: try await server.homeserver.reading.messages(
                in: room, .init(from: nil, to: nil, backwards: true, limit: 5, filter: RoomEventFilter()), for: alice)
        ).root
        let same = page["chunk"]?.elements.first { $0["event_id"]?.string == event.string }
        #expect(same?["unsigned"]?["m.relations"]?["m.reference"] != nil)
        #expect(try await ConsistencyCheck(server.homeserver.database).run().problems == [])
        await server.close()
    }
}
