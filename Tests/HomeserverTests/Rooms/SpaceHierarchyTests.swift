import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("The rooms below a space", .onEachEngine)
struct SpaceHierarchyTests {
    private let server: TestServer
    private let alice: Requester
    private let bob: Requester

    init() async throws {
        server = try await TestServer()
        alice = try await server.user("alice")
        bob = try await server.user("bob")
    }

    private func space(_ name: String) async throws -> RoomID {
        try await server.room(of: alice) {
            $0.name = name
            $0.creationContent = ["type": "m.space"]
        }
    }

    private func room(_ name: String, _ preset: RoomCreationService.Preset = .publicChat) async throws -> RoomID {
        try await server.room(of: alice) {
            $0.name = name
            $0.preset = preset
        }
    }

    private func put(
        _ child: RoomID, into space: RoomID, order: String? = nil, isSuggested: Bool? = nil, via: [JSON] = ["localhost"]
    ) async throws {
        server.clock.advance(by: 10)
        var content: JSON = ["via": .array(via)]
        if let order { content["order"] = .string(order) }
        if let isSuggested { content["suggested"] = .bool(isSuggested) }
        _ = try await server.homeserver.sending.setState(
            StateKey("m.space.child", child.string), content: content, in: space, by: alice)
    }

    private func page(
        of space: RoomID, limit: Int = 50, depth: Int? = nil, suggestedOnly: Bool = false, from: String? = nil,
        for user: Requester? = nil
    ) async throws -> (rooms: [JSON], next: String?) {
        let answer = try await server.homeserver.spaces.page(
            of: space, .init(limit: limit, maxDepth: depth, suggestedOnly: suggestedOnly, from: from),
            for: user ?? bob)
        return (answer["rooms"]?.arrayValue ?? [], answer["next_batch"]?.stringValue)
    }

    private func names(_ rooms: [JSON]) -> [String?] { rooms.map { $0["name"]?.stringValue } }

    @Test("depth first, children in the order of the specification, those without servers left out")
    func order() async throws {
        let top = try await space("top"), inner = try await space("inner")
        let a = try await room("a"), b = try await room("b"), c = try await room("c"), gone = try await room("gone")
        try await put(c, into: top)
        try await put(b, into: top, order: "~ is after letters")
        try await put(inner, into: top, order: "b")
        try await put(gone, into: top, via: [])
        try await put(a, into: inner, order: "not\u{7}valid")
        let (rooms, next) = try await page(of: top)
        #expect(names(rooms) == ["top", "inner", "a", "b", "c"] && next == nil)
        #expect(rooms[0]["room_type"] == "m.space" && rooms[0]["join_rule"] == "public")
        let children = rooms[0]["children_state"]?.arrayValue ?? []
        #expect(children.map { $0["state_key"]?.stringValue } == [inner, b, c].map(\.string))
        #expect(children.allSatisfy { $0["type"] == "m.space.child" && $0["origin_server_ts"] != nil })
        #expect(rooms[2]["children_state"] == [])
        #expect(names(try await page(of: top, depth: 1).rooms) == ["top", "inner", "b", "c"])
        #expect(names(try await page(of: top, depth: 0).rooms) == ["top"])
        await server.close()
    }

    @Test("what somebody may not know of is left out, and what is below it")
    func access() async throws {
        let top = try await space("top"), hidden = try await space("hidden"), below = try await room("below")
        let secret = try await room("secret", .privateChat), invited = try await room("invited", .privateChat)
        _ = try await server.homeserver.sending.setState(
            .joinRules, content: ["join_rule": "invite"], in: hidden, by: alice)
        for child in [hidden, secret, invited] { try await put(child, into: top) }
        try await put(below, into: hidden)
        try await put(RoomID(unchecked: "!unknown:elsewhere.example"), into: top)
        try await server.homeserver.memberships.invite(bob.userID, to: invited, reason: nil, by: alice)
        #expect(names(try await page(of: top).rooms) == ["top", "invited"])
        #expect(names(try await page(of: top, for: alice).rooms) == ["top", "hidden", "below", "secret", "invited"])
        await #expect(throws: MatrixError.self) { try await page(of: hidden) }
        await #expect(throws: MatrixError.self) { try await page(of: RoomID(unchecked: "!nowhere:localhost")) }
        // A room whose name is redacted has none.
        let name = try await server.homeserver.sending.setState(
            StateKey("m.room.name"), content: ["name": "a slip"], in: invited, by: alice)
        _ = try await server.homeserver.sending.send(
            "m.room.redaction", content: [:], to: invited, transactionID: "r", redacts: name, by: alice)
        #expect(names(try await page(of: top).rooms) == ["top", nil])
        await server.close()
    }

    @Test("only what is suggested, page by page; a token goes on with the walk it is from alone")
    func pages() async throws {
        let top = try await space("top")
        for number in 0..<7 {
            try await put(try await room("\(number)"), into: top, isSuggested: number % 2 == 0)
        }
        var found: [String?] = []
        var from: String?
        repeat {
            let (rooms, next) = try await page(of: top, limit: 2, suggestedOnly: true, from: from)
            #expect(rooms.count <= 2)
            found += names(rooms)
            from = next
        } while from != nil
        #expect(found == ["top", "0", "2", "4", "6"])
        let next = try #require(try await page(of: top, limit: 2, suggestedOnly: true).next)
        for wrong in ["h", "x2__1", "h0__1", "h2__1_", "", "h99999999999999999999__1"] {
            await #expect(throws: MatrixError.self) { try await page(of: top, suggestedOnly: true, from: wrong) }
        }
        await #expect(throws: MatrixError.self) { try await page(of: top, from: next) }
        await #expect(throws: MatrixError.self) { try await page(of: top, depth: 3, suggestedOnly: true, from: next) }
        await server.close()
    }

    @Test("A19: spaces within one another and in themselves end the walk; each room comes once")
    func cycles() async throws {
        let spaces = [try await space("0"), try await space("1"), try await space("2"), try await space("3")]
        for one in spaces { for other in spaces { try await put(other, into: one) } }
        let (rooms, next) = try await page(of: spaces[0])
        #expect(Set(names(rooms)) == ["0", "1", "2", "3"] && rooms.count == 4 && next == nil)
        await server.close()
    }

    @Test("A19: a chain without end and a space of countless children cost a bounded walk")
    func size() async throws {
        var chain = [try await space("0")]
        for number in 1...SpaceHierarchy.mostDepth + 3 {
            chain.append(try await space("\(number)"))
            try await put(chain[number], into: chain[number - 1])
        }
        let (deep, _) = try await page(of: chain[0], limit: 100, depth: .max)
        #expect(deep.count == SpaceHierarchy.mostDepth + 1)
        // Children that nobody knows cost no more than their names; what is behind the bound isn't there.
        let last = try await room("last")
        let wide = try await server.room(of: alice) {
            $0.name = "wide"
            $0.creationContent = ["type": "m.space"]
            for number in 0..<SpaceHierarchy.mostChildren - 1 {
                let child = StateKey("m.space.child", "!\(number):elsewhere.example")
                $0.initialState.append(.init(key: child, content: ["via": ["elsewhere.example"], "order": "a"]))
            }
            for (child, order) in [(last, "b"), (chain[0], "c")] {
                $0.initialState.append(
                    .init(
                        key: StateKey("m.space.child", child.string),
                        content: ["via": ["localhost"], "order": .string(order)]))
            }
        }
        #expect(names(try await page(of: wide).rooms) == ["wide", "last"])
        await server.close()
    }
}
