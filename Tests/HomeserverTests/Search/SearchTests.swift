import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Searching messages", .onEachEngine)
struct SearchTests {
    private let server: TestServer
    private let alice: Requester
    private let bob: Requester

    init() async throws {
        server = try await TestServer()
        alice = try await server.user("alice")
        bob = try await server.user("bob")
    }

    private func search(
        _ term: String, _ more: JSON = [:], from: String? = nil, for user: Requester
    ) async throws -> JSON {
        var criteria = more
        criteria["search_term"] = .string(term)
        let request = try SearchRequest(try JSONDocument(parsing: criteria.encoded()).root, nextBatch: from)
        let answer = try await server.homeserver.search.search(request, for: user)
        return try JSONDocument(parsing: answer).root.json["search_categories"]?["room_events"] ?? .null
    }

    private func bodies(_ answer: JSON) -> [String] {
        answer["results"]?.arrayValue?.compactMap { $0["result"]?["content"]?["body"]?.stringValue } ?? []
    }

    private func found(_ term: String, _ more: JSON = ["order_by": "recent"], for user: Requester) async throws
        -> [String]
    {
        bodies(try await search(term, more, for: user))
    }

    /// What holds for messages in the queue must hold for those in the index.
    private func twice(_ check: () async throws -> Void) async throws {
        try await check()
        _ = try await server.homeserver.indexing.run()
        #expect(try await server.homeserver.database.searchQueue(limit: 1).isEmpty)
        try await check()
    }

    private func say(_ text: String, in room: RoomID, by user: Requester) async throws -> EventID {
        server.clock.advance(by: 10)
        return try await server.say(text, in: room, by: user)
    }

    @Test("A11 a token with numbers that no search comes to is refused")
    func hugeToken() async throws {
        let room = try await server.room(of: alice)
        _ = try await say("hello", in: room, by: alice)
        let large = Int64.max
        for token in ["t\(large)_\(large)_\(large)", "t0_0_-1", "t1_1", "r-1", "t99999999999999999999_0_0", "x"] {
            await #expect(throws: MatrixError.self) {
                try await search("hello", ["order_by": "recent"], from: token, for: alice)
            }
        }
        let page = try await search("hello", ["order_by": "recent"], from: "t\(large)_\(large)_1", for: alice)
        #expect(bodies(page) == ["hello"] && page["count"] == 2)
        let ranked = try await search("hello", from: "r\(large)", for: alice)
        #expect(bodies(ranked) == [])
    }

    @Test("words of the text find it, in any order and case, in scripts with and without spaces")
    func words() async throws {
        let room = try await server.room(of: alice)
        for text in [
            "Martians and men", "men, MARTIANS!", "only men", "Straße nach Köln", "東京に行きました", "1984", "e-mail 7.5",
        ] {
            _ = try await say(text, in: room, by: alice)
        }
        try await twice { () async throws in
            #expect(try await found("martians men", for: alice) == ["men, MARTIANS!", "Martians and men"])
            #expect(try await found("men", for: alice).count == 3)
            #expect(try await found("mart", for: alice) == [])
            #expect(try await found("KÖLN straße", for: alice) == ["Straße nach Köln"])
            #expect(try await found("東京", for: alice) == ["東京に行きました"])
            #expect(try await found("京に行", for: alice) == ["東京に行きました"])
            #expect(try await found("東に", for: alice) == [])
            #expect(try await found("1984", for: alice) == ["1984"])
            #expect(try await found("mail", for: alice) == ["e-mail 7.5"])
            #expect(try await found("", for: alice) == [])
            #expect(try await found("?!", for: alice) == [])
            #expect(try await found("men", for: bob) == [])
        }
        await server.close()
    }

    @Test("many messages that a search had to look through are in the index before long, whatever the clock says")
    func hurry() async throws {
        let room = try await server.room(of: alice)
        for number in 0..<60 { _ = try await say("needle \(number)", in: room, by: alice) }
        #expect(try await found("needle 7", for: alice) == ["needle 7"])
        for _ in 0..<2_000 where try await !server.homeserver.database.searchQueue(limit: 1).isEmpty {
            try await Task.sleep(for: .milliseconds(5))
        }
        #expect(try await server.homeserver.database.searchQueue(limit: 1).isEmpty)
        #expect(try await found("needle 7", for: alice) == ["needle 7"])
        await server.close()
    }

    @Test("by rank or the newest first, filtered, page by page; each result once")
    func orders() async throws {
        let room = try await server.room(of: alice), other = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        var expected: [String] = []
        for number in 0..<25 {
            let text = "number \(number) tea" + String(repeating: " word", count: number % 3)
            _ = try await say(text, in: number % 2 == 0 ? room : other, by: number % 4 == 0 ? bob : alice)
            expected.insert(text, at: 0)
        }
        try await twice { () async throws in
            for order in ["recent", "rank"] {
                var all: [String] = []
                var from: String?
                repeat {
                    let page = try await search(
                        "tea", ["order_by": .string(order), "filter": ["limit": 4]], from: from, for: alice)
                    #expect(page["count"]?.integerValue == Int64(expected.count))
                    all += bodies(page)
                    from = page["next_batch"]?.stringValue
                } while from != nil
                if order == "recent" { #expect(all == expected) }
                #expect(all.count == expected.count && Set(all) == Set(expected))
                #expect(all.first == (order == "rank" ? "number 24 tea" : expected[0]))
            }
            let inRoom: JSON = ["order_by": "recent", "filter": ["rooms": [.string(room.string)], "limit": 100]]
            #expect(try await found("tea", inRoom, for: alice).count == 13)
            let ofBob: JSON = [
                "order_by": "recent", "filter": ["senders": [.string(bob.userID.string)], "limit": 100],
            ]
            #expect(try await found("tea", ofBob, for: alice).count == 7)
        }
        await #expect(throws: MatrixError.self) { try await search("tea", from: "nonsense", for: alice) }
        await server.close()
    }

    @Test("names and topics are found by their keys; context, profiles, groups and state come with what is found")
    func parts() async throws {
        let room = try await server.room(of: alice) {
            $0.name = "Tea house"
            $0.topic = "About tea"
        }
        try await server.homeserver.profiles.set("displayname", to: "Alice", for: alice)
        for text in ["one", "two", "tea", "three", "four"] { _ = try await say(text, in: room, by: alice) }
        try await twice { () async throws in
            func count(_ keys: JSON) async throws -> Int {
                try await search("tea", keys, for: alice)["results"]?.arrayValue?.count ?? 0
            }
            #expect(try await count([:]) == 3)
            #expect(try await count(["keys": ["content.name"]]) == 1)
            #expect(try await count(["keys": ["content.body", "content.topic"]]) == 2)
            let answer = try await search(
                "tea",
                [
                    "keys": ["content.body"], "include_state": true,
                    "event_context": ["before_limit": 1, "after_limit": 2, "include_profile": true],
                    "groupings": ["group_by": [["key": "room_id"], ["key": "sender"]]],
                ], for: alice)
            let result = answer["results"]?.arrayValue?.first
            let id = result?["result"]?["event_id"] ?? .null
            let context = result?["context"]
            func around(_ name: String) -> [String?]? {
                context?[name]?.arrayValue?.map { $0["content"]?["body"]?.stringValue }
            }
            #expect(around("events_before") == ["two"] && around("events_after") == ["three", "four"])
            #expect(context?["start"]?.stringValue != nil && context?["end"]?.stringValue != nil)
            #expect(context?["profile_info"]?["@alice:localhost"]?["displayname"] == "Alice")
            #expect(answer["groups"]?["room_id"]?[room.string]?["results"] == [id])
            #expect(answer["groups"]?["sender"]?["@alice:localhost"]?["results"] == [id])
            #expect(answer["highlights"] == ["tea"] && answer["count"] == 1)
            #expect(answer["state"]?[room.string]?.arrayValue?.isEmpty == false)
        }
        await server.close()
    }

    @Test(
        "A20: search finds what was said while one may have seen it, and nothing from before joining or after leaving")
    func visibility() async throws {
        let room = try await server.room(of: alice) {
            $0.initialState = [.init(key: .historyVisibility, content: ["history_visibility": "joined"])]
        }
        _ = try await say("tea before", in: room, by: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        _ = try await say("tea together", in: room, by: alice)
        try await server.homeserver.memberships.leave(room, reason: nil, by: bob)
        _ = try await say("tea after", in: room, by: alice)
        try await twice { () async throws in
            let answer = try await search("tea", ["event_context": [:], "include_state": true], for: bob)
            #expect(bodies(answer) == ["tea together"])
            #expect(answer["count"] == 1)
            let text = String(decoding: answer.encoded(), as: UTF8.self)
            #expect(!text.contains("tea before") && !text.contains("tea after"))
            #expect(try await found("tea", for: alice).count == 3)
        }
        try await server.homeserver.memberships.forget(room, by: bob)
        #expect(try await found("tea", for: bob) == [])
        await server.close()
    }

    @Test(
        "what was redacted, purged, said in encrypted rooms or by somebody ignored isn't found, and leaves no word behind"
    )
    func gone() async throws {
        let room = try await server.room(of: alice), closed = try await server.room(of: alice),
            doomed = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let first = try await say("tea one", in: room, by: alice),
            second = try await say("tea two", in: room, by: alice)
        _ = try await say("tea of bob", in: room, by: bob)
        let boundary = try await say("boundary", in: room, by: alice)
        _ = try await say("tea in a closed room", in: closed, by: alice)
        _ = try await say("tea in a doomed room", in: doomed, by: alice)
        // One is redacted in the queue, the other in the index.
        let sending = server.homeserver.sending
        _ = try await sending.send(
            "m.room.redaction", content: [:], to: room, transactionID: "1", redacts: first, by: alice)
        #expect(try await found("tea one", for: alice) == [])
        _ = try await server.homeserver.indexing.run()
        _ = try await sending.send(
            "m.room.redaction", content: [:], to: room, transactionID: "2", redacts: second, by: alice)
        _ = try await sending.setState(
            StateKey("m.room.encryption"), content: ["algorithm": "m.megolm.v1.aes-sha2"], in: closed, by: alice)
        try await server.homeserver.purging.purge(doomed)
        try await twice { () async throws in #expect(try await found("tea", for: alice) == ["tea of bob"]) }
        try await server.homeserver.purging.purgeHistory(of: room, before: boundary)
        #expect(try await found("tea", for: alice) == [])
        let left = try await server.homeserver.database.read { reader in
            try await reader.query(Statement("SELECT word FROM search_words ORDER BY word"), []) { $0.text(0) }
        }
        #expect(left == ["a", "boundary", "closed", "in", "room", "tea"])
        await server.close()
    }

    @Test("messages from before there was an index are found once it is filled, which goes on after a restart")
    func filling() async throws {
        let room = try await server.room(of: alice)
        for number in 0..<450 { try await server.say("old tea \(number)", in: room, by: alice) }
        var write = Write()
        write.run(Statement("DELETE FROM search_queue"))
        write.run(Statement("DELETE FROM search_words"))
        write.run(Statement("INSERT INTO background_migrations VALUES ('search queue', 0) ON CONFLICT DO NOTHING"))
        try await server.homeserver.database.write(write)
        let filling = try #require(server.homeserver.fillings.first { $0.name == "search queue" })
        #expect(try await filling.step() == .more)
        await server.close()
        let again = try await TestServer(directory: server.directory, clock: server.clock)
        server.clock.advance(by: 120_000)
        try await #require(again.homeserver.fillings.first { $0.name == "search queue" }).run()
        _ = try await again.homeserver.indexing.run()
        let request = try SearchRequest(
            try JSONDocument(parsing: Array(#"{"search_term": "tea 7", "order_by": "recent"}"#.utf8)).root,
            nextBatch: nil)
        let answer = try JSONDocument(parsing: try await again.homeserver.search.search(request, for: alice)).root.json
        #expect(bodies(answer["search_categories"]?["room_events"] ?? .null) == ["old tea 7"])
        await again.close()
    }
}
