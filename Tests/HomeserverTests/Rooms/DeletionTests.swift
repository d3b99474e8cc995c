import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("What is deleted", .onEachEngine)
struct DeletionTests {
    @Test("a redacted message's bytes are overwritten when their time has come, also after a restart")
    func overwriting() async throws {
        let directory = TemporaryDirectory()
        let clock = ManualSurroundings()
        var server = try await TestServer(directory: directory, clock: clock)
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        let event = try await server.say("a slip of the tongue", in: room, by: alice)
        _ = try await server.homeserver.sending.send(
            "m.room.redaction", content: [:], to: room, transactionID: "1", redacts: event, by: alice)
        #expect(try await server.homeserver.redactions.run() == 0)
        try await server.homeserver.database.engine.copy(to: "\(directory.path)/before.db")
        #expect(contains(try fileBytes("\(directory.path)/before.db"), "a slip of the tongue"))
        await server.close()

        clock.advance(by: 7 * 24 * 3_600 * 1_000)
        server = try await TestServer(directory: directory, clock: clock)
        #expect(try await server.homeserver.redactions.run() == 1)
        #expect(try await server.homeserver.redactions.run() == 0)
        let shown = try JSONDocument(parsing: try await server.homeserver.reading.event(event, in: room, for: alice))
            .root
        #expect(shown["content"]?.count == 0 && shown["unsigned"]?["redacted_because"] != nil)
        #expect(try await ConsistencyCheck(server.homeserver.database).run().problems == [])
        // Free pages keep what was on them; a copy has none.
        try await server.homeserver.database.engine.copy(to: "\(directory.path)/copy.db")
        #expect(!contains(try fileBytes("\(directory.path)/copy.db"), "a slip of the tongue"))
        await server.close()
    }

    @Test(
        "what clients' transactions made is known for a week, whatever stands between the old ones, and then it is let go"
    )
    func oldTransactions() async throws {
        let clock = ManualSurroundings()
        let server = try await TestServer(clock: clock)
        var users: [Requester] = []
        for name in ["alice", "bob", "carol"] { users.append(try await server.user(name)) }
        let room = try await server.room(of: users[0])
        for user in users.dropFirst() { try await server.homeserver.memberships.join(room, reason: nil, by: user) }
        func send(_ transaction: String, by user: Requester) async throws -> EventID {
            try await server.homeserver.sending.send(
                "m.room.message", content: ["body": "once"], to: room, transactionID: transaction, by: user)
        }
        /// Of each user's transactions of these names, how many make an event anew.
        func anew(_ names: [String], _ made: [[EventID]]) async throws -> [Int] {
            var counts: [Int] = []
            for (user, known) in zip(users, made) {
                var again: [EventID] = []
                for name in names { again.append(try await send(name, by: user)) }
                counts.append(zip(again, known).count { $0 != $1 })
            }
            return counts
        }
        func all(_ names: [String]) async throws -> [[EventID]] {
            var made: [[EventID]] = []
            for user in users {
                var events: [EventID] = []
                for name in names { events.append(try await send(name, by: user)) }
                made.append(events)
            }
            return made
        }
        let early = (0..<20).map { "early \($0)" }, late = (0..<20).map { "late \($0)" }
        let first = try await all(early)
        clock.advance(by: TransactionForgetting.memory)
        let second = try await all(late)
        try await server.homeserver.forgetting.run(batch: 7)
        #expect(try await anew(early, first) == [0, 0, 0])
        clock.advance(by: TransactionForgetting.interval)
        try await server.homeserver.forgetting.run(batch: 7)
        #expect(try await anew(late, second) == [0, 0, 0])
        #expect(try await anew(early, first) == [20, 20, 20])
        #expect(try await ConsistencyCheck(server.homeserver.database).run().problems == [])
        await server.close()
    }

    @Test("a purged room is gone from everywhere, and so is nothing else")
    func purgeOfRoom() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let doomed = try await server.room(of: alice) { $0.aliasName = "doomed" },
            other = try await server.room(of: alice)
        for room in [doomed, other] {
            try await server.homeserver.memberships.join(room, reason: nil, by: bob)
            for number in 0..<250 { try await server.say("\(number)", in: room, by: [alice, bob][number % 2]) }
        }
        let event = try await server.say("last", in: doomed, by: alice)
        try await server.homeserver.receipts.setReadMarkers(
            fullyRead: event, read: event, readPrivate: nil, in: doomed, by: bob)
        try await server.homeserver.purging.purge(doomed)
        #expect(try await server.homeserver.reading.joinedRooms(of: alice) == [other])
        await #expect(throws: MatrixError.self) { try await server.history(of: doomed, for: alice) }
        await #expect(throws: MatrixError.self) {
            try await server.homeserver.memberships.join(doomed, reason: nil, by: bob)
        }
        await #expect(throws: MatrixError.self) { try await server.homeserver.directory.resolve("#doomed:localhost") }
        #expect(try await server.sync(bob)["rooms"]?["join"]?.members.map(\.key) == [other.string])
        let database = server.homeserver.database
        #expect(try await database.event(event) == nil)
        #expect(try await database.read { try await database.isPurged(StoredEvent.key(of: event), $0) })
        #expect(try await server.history(of: other, for: bob, page: 100).count == 250)
        let report = try await ConsistencyCheck(database).run()
        #expect(report.problems == [] && report.rooms == 1)
        await server.close()
    }

    @Test("purging history takes the old messages, keeps the state, and goes on after a crash")
    func purgeOfHistory() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice) { $0.name = "Den" }
        for number in 0..<300 { try await server.say("\(number)", in: room, by: alice) }
        let boundary = try await server.say("boundary", in: room, by: alice)
        try await server.say("after", in: room, by: alice)
        let database = server.homeserver.database
        let event = try #require(try await database.event(boundary))
        // Begun, and interrupted after one batch.
        let purge = Purge(
            room: event.room, before: Database.OrderedPlace(depth: event.orderDepth, position: event.position!))
        try await database.begin(purge, at: 0)
        #expect(try await database.continuePurge(purge, batch: 50).count == 50)
        try await server.homeserver.startJobs()
        #expect(try await database.purges().isEmpty)
        #expect(try await server.history(of: room, for: alice) == ["after", "boundary"])
        let name = try await server.homeserver.reading.state(
            of: room, key: StateKey("m.room.name"), wholeEvent: false, for: alice)
        #expect(contains(name, "Den"))
        try await server.say("goes on", in: room, by: alice)
        #expect(try await ConsistencyCheck(database).run().problems == [])
        await server.close()
    }

    @Test("a backup made under load opens clean, and restores to a server that goes on")
    func backup() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let upload = try server.homeserver.media.beginUpload()
        try Array("a picture".utf8).withUnsafeBytes { try upload.write($0) }
        let uri = try await upload.finish(contentType: nil, fileName: nil, by: alice)
        try await server.say("before the backup", in: room, by: alice)
        let since = try #require(try await server.sync(bob)["next_batch"]?.string)
        let writing = Task {
            var count = 0
            while !Task.isCancelled {
                try await server.say("meanwhile \(count)", in: room, by: bob)
                count += 1
            }
        }
        let target = TemporaryDirectory()
        let summary = try await server.homeserver.maintenance.backUp(to: "\(target.path)/backup")
        writing.cancel()
        _ = try? await writing.value
        #expect(summary.rooms == 1 && summary.mediaFiles == 1)
        await #expect(throws: MatrixError.self) {
            try await server.homeserver.maintenance.backUp(to: "\(target.path)/backup")
        }
        let later = try #require(try await server.sync(bob)["next_batch"]?.string)
        await server.close()

        let place = TemporaryDirectory()
        var location = Configuration.DatabaseLocation.sqlite(path: "\(place.path)/roost.db")
        if EngineKind.current == .postgresql { location = .postgresql(url: try await EngineKind.url(of: place)) }
        func restore(_ name: String = "localhost") async throws -> Backup.Summary {
            try await Backup.restore(
                from: "\(target.path)/backup", serverName: ServerName(name)!, to: location,
                mediaPath: "\(place.path)/media", scratch: place.path,
                surroundings: ManualSurroundings(seed: 77).surroundings,
                logger: .init(label: "t"))
        }
        await #expect(throws: Backup.Problem.self) { try await restore("other.example") }
        #expect(try await restore().events == summary.events)
        await #expect(throws: (any Error).self) { try await restore() }
        let again = try await TestServer(directory: place, clock: ManualSurroundings(seed: 5))
        #expect(try await again.history(of: room, for: alice).contains("before the backup"))
        // Tokens of the time before mean nothing any more, be they older or newer than the backup.
        for token in [since, later] { #expect(try await again.sync(bob, since: token)["rooms"]?["join"]?.count == 1) }
        let mediaID = String(uri.split(separator: "/").last!)
        let file = try await again.homeserver.media.download(.init(server: "localhost", mediaID: mediaID))
        #expect(try fileBytes(file.path) == Array("a picture".utf8))
        try await again.say("after the restore", in: room, by: bob)
        // From either engine to the other, too.
        let other = TemporaryDirectory()
        location = .sqlite(path: "\(other.path)/roost.db")
        #expect(try await restore().events == summary.events)
        #expect(try await ConsistencyCheck(again.homeserver.database).run().problems == [])
        await again.close()
    }
}
