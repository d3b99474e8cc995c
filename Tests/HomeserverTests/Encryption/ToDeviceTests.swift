import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Messages to devices", .onEachEngine)
struct ToDeviceTests {
    private func token(_ sync: JSONView) throws -> String { try #require(sync["next_batch"]?.string) }

    private func bodies(_ sync: JSONView) -> [String] {
        sync["to_device"]?["events"]?.elements.compactMap { $0["content"]?["body"]?.string } ?? []
    }

    private func send(
        _ messages: JSON, _ transaction: String, by user: Requester, _ server: TestServer, type: String = "org.example"
    ) async throws {
        try await server.homeserver.toDevice.send(type, messages.view, transactionID: transaction, by: user)
    }

    private func text(_ body: String) -> JSON { ["body": .string(body)] }

    private func secondDevice(_ name: String, _ deviceID: String, _ server: TestServer) async throws -> Requester {
        let session = try await server.homeserver.accounts.logIn(
            user: name, password: name, deviceID: deviceID, displayName: nil)
        return try await server.homeserver.accounts.tokens.requester(for: session.accessToken)
    }

    private static let rows = Statement("SELECT count(*) FROM to_device")
    private static let bodies = Statement("SELECT count(*) FROM to_device_bodies")
    private static let cursors = Statement("SELECT count(*) FROM to_device_cursors")

    /// Rows of messages, of shared contents, and of cursors.
    private func stored(_ server: TestServer) async throws -> [Int64] {
        try await server.homeserver.database.read { reader in
            var counts: [Int64] = []
            for statement in [Self.rows, Self.bodies, Self.cursors] {
                counts += try await reader.query(statement, []) { $0.integer(0) }
            }
            return counts
        }
    }

    @Test("a message arrives in order, until it is acknowledged by the next token, and then never again")
    func delivery() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let start = try token(try await server.sync(bob))
        for number in 0..<3 {
            try await send([bob.userID.string: [bob.deviceID: text("\(number)")]], "t\(number)", by: alice, server)
        }
        // The same transaction again.
        try await send([bob.userID.string: [bob.deviceID: text("again")]], "t2", by: alice, server)
        let answer = try await server.sync(bob, since: start)
        #expect(bodies(answer) == ["0", "1", "2"])
        let event = answer["to_device"]?["events"]?.elements.first { _ in true }
        #expect(event?["sender"]?.string == alice.userID.string && event?["type"]?.string == "org.example")
        #expect(event?.count == 3)
        // Not acknowledged: the answer may have been lost.
        #expect(bodies(try await server.sync(bob, since: start)) == ["0", "1", "2"])
        #expect(bodies(try await server.sync(bob)) == ["0", "1", "2"])
        let next = try token(answer)
        #expect(bodies(try await server.sync(bob, since: next)) == [])
        #expect(bodies(try await server.sync(bob, since: start)) == [])
        #expect(bodies(try await server.sync(bob)) == [])
        #expect(try await stored(server) == [0, 0, 0])
        await server.close()
    }

    @Test("a hundred at most come at a time, the rest at once after, all in order; what is large comes in parts")
    func pages() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        var since = try token(try await server.sync(bob))
        for number in 0..<230 {
            try await send([bob.userID.string: ["*": text("\(number)")]], "t\(number)", by: alice, server)
        }
        var shown: [String] = [], sizes: [Int] = []
        for _ in 0..<4 {
            let answer = try await server.sync(bob, since: since, timeout: sizes.count < 3 ? 30_000 : 0)
            shown += bodies(answer)
            sizes.append(bodies(answer).count)
            since = try token(answer)
        }
        #expect(shown == (0..<230).map(String.init) && sizes == [100, 100, 30, 0])
        let large = String(repeating: "x", count: 60_000)
        for number in 0..<50 {
            try await send(
                [bob.userID.string: [bob.deviceID: ["body": .string("\(number)"), "x": .string(large)]]], "l\(number)",
                by: alice, server)
        }
        let first = try await server.sync(bob, since: since)
        #expect((1..<50).contains(bodies(first).count))
        let second = try await server.sync(bob, since: try token(first))
        #expect(bodies(first) + bodies(second) == (0..<50).map(String.init))
        await server.close()
    }

    @Test("a message to all devices is stored once, comes to each once, and goes when the last has it")
    func shared() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let carol = try await server.user("carol")
        let tablet = try await secondDevice("bob", "TABLET", server)
        let laptop = try await secondDevice("bob", "LAPTOP", server)
        try await send(
            [
                bob.userID.string: ["*": text("all"), "LAPTOP": text("you")], carol.userID.string: ["*": text("all")],
                alice.userID.string: ["NODEVICE": text("all")], "@nobody:localhost": ["*": text("all")],
                "@far:away.example": ["*": text("all")],
            ], "t", by: alice, server)
        // Two for bob, one for carol; the content of both once.
        #expect(try await stored(server) == [3, 1, 0])
        let first = try await server.sync(bob), other = try await server.sync(tablet)
        #expect(bodies(first) == ["all"] && bodies(other) == ["all"])
        #expect(bodies(try await server.sync(laptop)) == ["you"])
        let carols = try await server.sync(carol)
        #expect(bodies(carols) == ["all"])
        #expect(bodies(try await server.sync(alice)) == [])
        #expect(bodies(try await server.sync(bob, since: try token(first))) == [])
        #expect(bodies(try await server.sync(bob)) == [])
        #expect(bodies(try await server.sync(tablet)) == ["all"])
        #expect(try await stored(server) == [3, 1, 1])
        _ = try await server.sync(tablet, since: try token(other))
        #expect(try await stored(server) == [2, 1, 0])
        _ = try await server.sync(carol, since: try token(carols))
        #expect(try await stored(server) == [1, 0, 0])
        await server.close()
    }

    @Test("what waits for a device goes with it, and another of its name gets nothing of it")
    func deletion() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let tablet = try await secondDevice("bob", "TABLET", server)
        try await send([bob.userID.string: ["TABLET": text("one")]], "t1", by: alice, server)
        try await send([bob.userID.string: ["*": text("all")]], "t2", by: alice, server)
        try await send(
            [bob.userID.string: ["TABLET": text("both")], alice.userID.string: ["*": text("both")]], "t3", by: alice,
            server)
        try await server.homeserver.accounts.logOut(tablet)
        let again = try await secondDevice("bob", "TABLET", server)
        #expect(bodies(try await server.sync(again)) == [])
        try await send([bob.userID.string: ["*": text("new")]], "t4", by: alice, server)
        #expect(bodies(try await server.sync(again)) == ["new"])
        for user in [bob, again, alice] {
            let answer = try await server.sync(user)
            _ = try await server.sync(user, since: try token(answer))
        }
        #expect(try await stored(server) == [0, 0, 0])
        await server.close()
    }

    @Test("a device counts from when it has come until it ends, whoever has sent to its user's others before")
    func known() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        func all(_ body: String, _ transaction: String) async throws {
            try await send([bob.userID.string: ["*": text(body)]], transaction, by: alice, server)
        }
        func one(_ device: String, _ body: String, _ transaction: String) async throws {
            try await send([bob.userID.string: [device: text(body)]], transaction, by: alice, server)
        }
        try await one(bob.deviceID, "first", "1")
        try await one("NEW", "nobody's", "2")
        let new = try await secondDevice("bob", "NEW", server)
        try await one("NEW", "new", "3")
        try await all("both", "4")
        #expect(try bodies(await server.sync(bob)) == ["first", "both"])
        #expect(try bodies(await server.sync(new)) == ["new", "both"])
        let before = try await stored(server)
        // Devices without keys and with them end alike.
        try await server.homeserver.accounts.logOut(new)
        try await one("NEW", "late", "5")
        #expect(try await stored(server)[0] < before[0])
        let again = try await secondDevice("bob", "NEW", server)
        #expect(try bodies(await server.sync(again)).isEmpty)
        try await one("NEW", "again", "6")
        #expect(try bodies(await server.sync(again)) == ["again"])
        await server.close()
    }

    @Test("a waiting sync gets a message at once; two at the same time get the same")
    func waiting() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let since = try token(try await server.sync(bob))
        let waiting = (0..<2).map { _ in Task { bodies(try await server.sync(bob, since: since, timeout: 30_000)) } }
        try await send([bob.userID.string: [bob.deviceID: text("news")]], "t", by: alice, server)
        for task in waiting { #expect(try await task.value == ["news"]) }
        await server.close()
    }

    @Test("messages wait through a restart")
    func restart() async throws {
        let directory = TemporaryDirectory()
        let server = try await TestServer(directory: directory)
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let since = try token(try await server.sync(bob))
        try await send([bob.userID.string: ["*": text("news")]], "t", by: alice, server)
        await server.close()
        let again = try await TestServer(directory: directory, clock: ManualSurroundings(seed: 2))
        let answer = try await again.sync(bob, since: since)
        #expect(bodies(answer) == ["news"])
        try await send([bob.userID.string: ["*": text("news")]], "t", by: alice, again)
        #expect(bodies(try await again.sync(bob, since: try token(answer))) == [])
        await again.close()
    }

    @Test("a queue has a bound: the oldest go first")
    func bound() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let service = ToDeviceService(
            database: server.homeserver.database, serverName: ServerName("localhost")!,
            surroundings: server.clock.surroundings, mostWaiting: 20)
        for number in 0..<50 {
            let messages: JSON = [bob.userID.string: [bob.deviceID: text("\(number)")]]
            try await service.send("org.example", messages.view, transactionID: "t\(number)", by: alice)
        }
        #expect(bodies(try await server.sync(bob)) == (30..<50).map(String.init))
        #expect(try await stored(server) == [20, 0, 0])
        await server.close()
    }

    @Test("A17: what is malformed or huge is refused when it is sent, and what is odd breaks nobody's sync")
    func hostile() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let since = try token(try await server.sync(bob))
        let huge = String(repeating: "x", count: 70_000)
        for (messages, code) in [
            ([bob.userID.string: [bob.deviceID: "text"]], .badJSON), ([bob.userID.string: []], .badJSON),
            (["bob": ["*": [:]]], .invalidParam), ([bob.userID.string: ["*": ["x": .string(huge)]]], .tooLarge),
        ] as [(JSON, MatrixError.Code)] {
            do {
                try await send(messages, "bad", by: alice, server)
                Issue.record("\(code) was expected")
            } catch let error as MatrixError { #expect(error.code == code) }
        }
        await #expect(throws: MatrixError.self) {
            try await send([:], "bad", by: alice, server, type: String(repeating: "t", count: 256))
        }
        // Content means nothing to the server: what a client may stumble over is passed on as it is.
        let odd =
            #"{"body":"odd","m.relates_to":[],"n":1e400,"s":"\u0000\ud83d\ude00","deep":"#
            + String(repeating: "[", count: 90)
            + String(repeating: "]", count: 90) + "}"
        let messages = try JSONDocument(parsing: Array(#"{"\#(bob.userID)":{"*":\#(odd)}}"#.utf8)).root
        try await server.homeserver.toDevice.send("m.room_key", messages, transactionID: "odd", by: alice)
        try await send([bob.userID.string: ["*": text("after")]], "t", by: alice, server)
        // Keys with members of unexpected kinds are passed on, too, and are no reason to fail for whoever shares a room.
        var keys = SigningTestKey(seed: 1).deviceKeys(of: alice.userID.string, alice.deviceID)
        keys["unsigned"] = 7
        keys["org.example.odd"] = ["\u{0}": [.null, [:], "x"]]
        keys["keys"] = ["ed25519:\(alice.deviceID)": "no base64 at all"]
        _ = try await server.homeserver.deviceKeys.upload(JSON.object(["device_keys": keys]).view, for: alice)
        let master = SigningTestKey(seed: 2)
        _ = try await server.homeserver.crossSigning.upload(
            JSON.object(["master_key": master.crossSigningKey("master", of: alice.userID.string)]).view, for: alice)
        // An invitation with odd stripped state comes from this server's own state: names of any kind.
        let den = try await server.room(of: alice) { $0.preset = .privateChat }
        for (type, content) in [
            ("m.room.name", ["name": 7]), ("m.room.join_rules", ["join_rule": "invite", "allow": 7]),
        ]
            as [(String, JSON)]
        {
            _ = try await server.homeserver.sending.setState(StateKey(type, ""), content: content, in: den, by: alice)
        }
        try await server.homeserver.memberships.invite(
            bob.userID, to: den, reason: huge.prefix(10_000).description, by: alice)
        try await server.say("hello", in: room, by: alice)

        let answer = try await server.sync(bob, since: since)
        #expect(bodies(answer) == ["odd", "after"])
        #expect(answer["device_lists"]?["changed"]?.elements.compactMap(\.string) == [alice.userID.string])
        #expect(answer["rooms"]?["invite"]?[den.string] != nil)
        #expect(answer["rooms"]?["join"]?[room.string]?["timeline"]?["events"]?.count == 1)
        let query = try await server.homeserver.deviceKeys.query(JSON.object([alice.userID.string: []]).view, for: bob)
            .encoded()
        let keysOfAlice = try JSONDocument(parsing: query).root["device_keys"]?[alice.userID.string]
        #expect(keysOfAlice?[alice.deviceID]?["keys"]?.json == keys["keys"])
        await server.close()
    }

    @Test("A17: a message that has lost its content keeps nobody from the others")
    func broken() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let since = try token(try await server.sync(bob))
        for name in ["first", "lost", "last"] {
            try await send(
                [bob.userID.string: ["*": text(name)], alice.userID.string: ["*": text(name)]], name, by: alice, server)
        }
        var write = Write()
        write.run(Self.damage)
        try await server.homeserver.database.write(write)
        let answer = try await server.sync(bob, since: since)
        #expect(bodies(answer) == ["first", "last"])
        #expect(bodies(try await server.sync(bob, since: try token(answer))) == [])
        #expect(bodies(try await server.sync(bob)) == [])
        await server.close()
    }

    /// Deletes the second of three shared contents.
    private static let damage = Statement(
        """
        DELETE FROM to_device_bodies WHERE position =
        (SELECT position FROM to_device_bodies ORDER BY position LIMIT 1 OFFSET 1)
        """)

    @Test("each sync tells how many keys are left; and which fallback keys are unused")
    func counts() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let first = try await server.sync(alice)
        #expect(first["device_unused_fallback_key_types"]?.count == 0)
        _ = try await server.homeserver.deviceKeys.upload(
            JSON.object(["one_time_keys": ["a:1": "x", "a:2": "y"], "fallback_keys": ["a:F": "z"]]).view, for: alice)
        var answer = try await server.sync(alice, since: try token(first))
        #expect(answer["device_one_time_keys_count"]?["a"]?.integer == 2)
        #expect(answer["device_unused_fallback_key_types"]?.elements.compactMap(\.string) == ["a"])
        for _ in 0..<3 {
            _ = try await server.homeserver.deviceKeys.claim(
                JSON.object([alice.userID.string: [alice.deviceID: "a"]]).view)
        }
        answer = try await server.sync(alice, since: try token(answer))
        // Of the algorithm that clients go by they are told, too, that none are left.
        #expect(answer["device_one_time_keys_count"]?.json == ["signed_curve25519": 0])
        #expect(answer["device_unused_fallback_key_types"]?.count == 0)
        await server.close()
    }
}
