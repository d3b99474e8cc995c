import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Rooms", .onEachEngine)
struct RoomTests {
    @Test("rooms of every version carry a conversation", arguments: RoomVersion.all.map(\.identifier))
    func everyVersion(version: String) async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice, version: version) {
            $0.name = "A name"
            $0.topic = "A topic"
        }
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        for number in 0..<5 { try await server.say("\(number)", in: room, by: [alice, bob][number % 2]) }
        #expect(try await server.history(of: room, for: bob) == ["4", "3", "2", "1", "0"])
        let members = try JSONDocument(
            parsing: try await server.homeserver.reading.joinedMembers(of: room, for: alice)
        ).root
        #expect(members["joined"]?.count == 2)
        #expect((room.server == nil) == (version == "12"))
        await server.close()
    }

    @Test("what clients get of an event has its ID and nothing that only servers need")
    func clientFormat() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        for version in ["1", "11", "12"] {
            let room = try await server.room(of: alice, version: version) { $0.name = "Ü \"quoted\"" }
            let answer = try await server.homeserver.reading.state(of: room, for: alice)
            let events = Array(try JSONDocument(parsing: answer).root.elements)
            #expect(events.count >= 6)
            for event in events {
                let keys = Set(event.members.map(\.key))
                #expect(
                    keys == [
                        "content", "event_id", "origin_server_ts", "room_id", "sender", "state_key", "type", "unsigned",
                    ])
                #expect(event["room_id"]?.string == room.string)
                #expect(EventID(event["event_id"]?.string ?? "") != nil)
            }
        }
        await server.close()
    }

    @Test("the same transaction makes one event: one after another, at once, and after a restart")
    func transactions() async throws {
        let directory = TemporaryDirectory()
        var server = try await TestServer(directory: directory)
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        func send(_ server: TestServer, _ transaction: String, type: String = "m.room.message") async throws -> EventID
        {
            try await server.homeserver.sending.send(
                type, content: ["body": "once"], to: room, transactionID: transaction, by: alice)
        }
        let first = try await send(server, "a")
        #expect(try await send(server, "a") == first)
        #expect(try await send(server, "b") != first)
        #expect(try await send(server, "a", type: "other.type") != first)
        let running = server
        let many = try await withThrowingTaskGroup(of: EventID.self) { group in
            for _ in 0..<30 { group.addTask { try await send(running, "c") } }
            return try await group.reduce(into: Set<EventID>()) { $0.insert($1) }
        }
        #expect(many.count == 1)
        await server.close()
        server = try await TestServer(directory: directory)
        #expect(try await send(server, "a") == first)
        #expect(try await server.history(of: room, for: alice).count == 4)
        await server.close()
    }

    @Test(
        "a transaction that is repeated when it isn't allowed any more answers what it has made, others beside it go on"
    )
    func repeatedTransactions() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        @Sendable func send(_ transaction: String, by user: Requester) async throws -> EventID {
            try await server.homeserver.sending.send(
                "m.room.message", content: ["body": "once"], to: room, transactionID: transaction, by: user)
        }
        let first = try await send("a", by: bob)
        try await server.homeserver.memberships.remove(bob.userID, from: room, .kick, reason: nil, by: alice)
        await #expect(throws: MatrixError.self) { try await send("b", by: bob) }
        let (repeated, others) = try await withThrowingTaskGroup(of: (Bool, EventID?).self) { group in
            for number in 0..<10 {
                group.addTask { (false, try await send("\(number)", by: alice)) }
                group.addTask { (true, try await send("a", by: bob)) }
                group.addTask { (false, try? await send("c", by: bob)) }
            }
            return try await group.reduce(into: (Set<EventID>(), Set<EventID>())) { sets, answer in
                guard let event = answer.1 else { return }
                if answer.0 { sets.0.insert(event) } else { sets.1.insert(event) }
            }
        }
        #expect(repeated == [first] && others.count == 10)
        #expect(try await server.history(of: room, for: alice).count == 11)
        await server.close()
    }

    @Test("whoever is sent away reads no further, reads on when back, and nothing of what is forgotten")
    func sentAway() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        let memberships = server.homeserver.memberships
        try await memberships.join(room, reason: nil, by: bob)
        try await server.say("before", in: room, by: alice)
        // Where other nodes may be there, what was read is only remembered after a while.
        for _ in 0..<3 { #expect(try await server.history(of: room, for: bob).contains("before")) }
        try await memberships.remove(bob.userID, from: room, .kick, reason: nil, by: alice)
        try await server.say("after", in: room, by: alice)
        let seen = try await server.history(of: room, for: bob)
        #expect(seen == ["before"])
        try await memberships.join(room, reason: nil, by: bob)
        for _ in 0..<2 { #expect(try await server.history(of: room, for: bob).contains("after")) }
        try await memberships.leave(room, reason: nil, by: bob)
        try await memberships.forget(room, by: bob)
        await #expect(throws: MatrixError.self) { try await server.history(of: room, for: bob) }
        await server.close()
    }

    @Test("many write at once: all is there, each one's in order, and the events form a chain")
    func concurrentWriters() async throws {
        let server = try await TestServer()
        var users: [Requester] = []
        for number in 0..<6 { users.append(try await server.user("user\(number)")) }
        let room = try await server.room(of: users[0])
        for user in users.dropFirst() { try await server.homeserver.memberships.join(room, reason: nil, by: user) }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (index, user) in users.enumerated() {
                group.addTask {
                    for number in 0..<25 { try await server.say("\(index) \(number)", in: room, by: user) }
                }
            }
            try await group.waitForAll()
        }
        let history = try await server.history(of: room, for: users[0], page: 17)
        #expect(history.count == 150 && Set(history).count == 150)
        for index in users.indices {
            let own = history.filter { $0.hasPrefix("\(index) ") }
            #expect(own == (0..<25).reversed().map { "\(index) \($0)" })
        }
        await server.close()
    }

    @Test("what the rules forbid is refused and leaves no trace")
    func forbidden() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob"),
            carol = try await server.user("carol")
        let room = try await server.room(of: alice) { $0.preset = .privateChat }
        let memberships = server.homeserver.memberships
        func refused(_ work: () async throws -> Void) async {
            let error = await #expect(throws: MatrixError.self) { try await work() }
            #expect(error?.code == .forbidden)
        }
        await refused { try await memberships.join(room, reason: nil, by: bob) }
        await refused { try await server.say("from outside", in: room, by: bob) }
        await refused { try await memberships.invite(carol.userID, to: room, reason: nil, by: bob) }
        try await memberships.invite(bob.userID, to: room, reason: nil, by: alice)
        await refused { try await server.say("only invited", in: room, by: bob) }
        try await memberships.join(room, reason: nil, by: bob)
        await refused {
            _ = try await server.homeserver.sending.setState(
                StateKey("m.room.name"), content: ["name": "mine"], in: room, by: bob)
        }
        await refused { try await memberships.remove(alice.userID, from: room, .kick, reason: nil, by: bob) }
        try await memberships.remove(bob.userID, from: room, .ban, reason: "spam", by: alice)
        await refused { try await memberships.join(room, reason: nil, by: bob) }
        await refused { try await memberships.invite(bob.userID, to: room, reason: nil, by: alice) }
        try await memberships.remove(bob.userID, from: room, .unban, reason: nil, by: alice)
        try await memberships.invite(bob.userID, to: room, reason: nil, by: alice)
        #expect(try await server.history(of: room, for: alice).isEmpty)
        await server.close()
    }

    @Test("a redacted message keeps its place and loses its content")
    func redaction() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        for version in ["10", "12"] {
            let room = try await server.room(of: alice, version: version)
            try await server.homeserver.memberships.join(room, reason: nil, by: bob)
            let event = try await server.say("a slip", in: room, by: alice)
            let foreign = await #expect(throws: MatrixError.self) {
                try await server.homeserver.sending.send(
                    "m.room.redaction", content: [:], to: room, transactionID: "1", redacts: event, by: bob)
            }
            #expect(foreign?.code == .forbidden)
            let redaction = try await server.homeserver.sending.send(
                "m.room.redaction", content: ["reason": "typo"], to: room, transactionID: "1", redacts: event, by: alice
            )
            let shown = try JSONDocument(
                parsing: try await server.homeserver.reading.event(event, in: room, for: bob)
            ).root
            #expect(shown["content"]?.count == 0)
            #expect(shown["unsigned"]?["redacted_because"]?["event_id"]?.string == redaction.string)
            #expect(shown["unsigned"]?["redacted_because"]?["content"]?["reason"]?.string == "typo")
            #expect(try await server.history(of: room, for: bob).isEmpty)
        }
        await server.close()
    }

    @Test("A22: a room that doesn't exist and one that isn't one's own look the same")
    func existenceIsPrivate() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice) { $0.preset = .privateChat }
        var errors: Set<String> = []
        for candidate in [room, RoomID("!nowhere:localhost")!] {
            let error = await #expect(throws: MatrixError.self) {
                try await server.homeserver.reading.state(of: candidate, for: bob)
            }
            errors.insert(error?.description ?? "")
        }
        #expect(errors.count == 1)
        await server.close()
    }

    @Test("an alias names one room")
    func aliases() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice) { $0.aliasName = "den" }
        let alias = RoomAlias("#den:localhost")!
        #expect(try await server.homeserver.directory.resolve(alias).0 == room)
        #expect(try await server.homeserver.directory.resolve("#den:localhost").0 == room)
        let error = await #expect(throws: MatrixError.self) {
            try await server.room(of: alice) { $0.aliasName = "den" }
        }
        #expect(error?.code == .roomInUse)
        try await server.homeserver.directory.delete(alias, by: alice)
        await #expect(throws: MatrixError.self) { try await server.homeserver.directory.resolve(alias) }
        await server.close()
    }
}
