import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite(
    "A server of several nodes among others", .enabled(if: EngineKind.cluster != nil, "ROOST_TEST_POSTGRES is not set"))
struct SharedDatabaseTests {
    private static func ephemeral(
        _ type: String, in room: RoomID, for user: Requester, on server: TestServer
    ) async throws -> JSONView? {
        let events = try await server.sync(user)["rooms"]?["join"]?[room.string]?["ephemeral"]?["events"]
        return events?.elements.first { $0["type"]?.isString(type) == true }?["content"]
    }

    private static func typists(in room: RoomID, for user: Requester, on server: TestServer) async throws -> [String] {
        try await ephemeral("m.typing", in: room, for: user, on: server)?["user_ids"]?.elements.compactMap(\.string)
            ?? []
    }

    @Test("typing, receipts and presence that a node hears which doesn't tell other servers reach them all the same")
    func ephemera() async throws {
        try await EngineKind.onPostgreSQL {
            let scene = try await FederationScene(2)
            let name = scene[0].configuration.serverName
            let alice = try await scene[0].user("alice")
            let carol = try await scene[0].user("carol")
            let bob = try await scene[1].user("bob")
            let room = try await scene[0].room(of: alice)
            try await scene[0].homeserver.memberships.join(room, reason: nil, via: [], by: carol)
            try await scene[1].homeserver.memberships.join(room, reason: nil, via: [name], by: bob)
            let event = try await scene[0].say("hello", in: room, by: alice)
            try await scene.eventually("the message arrives") {
                try await scene.texts(in: room, for: bob, on: scene[1]) == ["hello"]
            }

            // The second node comes when the first has the lease.
            let clock = ManualSurroundings(seed: 9, now: scene[0].clock.now)
            let second = try await TestServer(
                directory: scene[0].directory, clock: clock, transport: scene.network.transport(of: name)
            ) { $0.serverName = name }
            try await second.homeserver.startJobs()

            try await second.homeserver.receipts.setTyping(120_000, in: room, by: alice)
            try await scene.eventually("typing is seen elsewhere") {
                try await Self.typists(in: room, for: bob, on: scene[1]) == [alice.userID.string]
            }
            try await scene.eventually("and on the other node") {
                try await Self.typists(in: room, for: carol, on: scene[0]) == [alice.userID.string]
            }
            try await second.homeserver.receipts.setTyping(nil, in: room, by: alice)
            try await scene.eventually("and so is that it has ended") {
                try await Self.typists(in: room, for: bob, on: scene[1]) == []
            }
            // Whichever node hears of it from another server, all show it.
            try await scene[1].homeserver.receipts.setTyping(120_000, in: room, by: bob)
            try await scene.eventually("typing elsewhere is seen on every node") {
                try await Self.typists(in: room, for: carol, on: second) == [bob.userID.string]
            }
            try await scene[1].homeserver.memberships.leave(room, reason: nil, by: bob)
            try await scene.eventually("and who leaves types no more") {
                try await Self.typists(in: room, for: carol, on: second) == []
            }
            try await scene[1].homeserver.memberships.join(room, reason: nil, via: [name], by: bob)

            try await second.homeserver.receipts.setReceipt("m.read", on: event, thread: nil, in: room, by: alice)
            try await second.homeserver.receipts.setReceipt(
                "m.read.private", on: event, thread: nil, in: room, by: carol)
            try await scene.eventually("the receipt is told, with its time") {
                let readers = try await Self.ephemeral("m.receipt", in: room, for: bob, on: scene[1])?[event.string]
                return readers?["m.read"]?[alice.userID.string]?["ts"]?.integer == clock.now
            }
            try await second.homeserver.presence.set(.online, status: "on the second node", for: alice)
            try await scene.eventually("presence is told") {
                clock.advance(by: 1_000)
                let content = try await scene[1].homeserver.presence.content(
                    of: try await scene[1].homeserver.database.number(ofUser: alice.userID))
                return content["status_msg"]?.stringValue == "on the second node"
            }
            let readers = try scene.network.exchanges.filter { $0.from == name && $0.target.contains("/send/") }
                .flatMap { try JSONDocument(parsing: $0.body).root["edus"]?.elements.map(\.self) ?? [] }
                .compactMap { $0["content"]?[room.string]?["m.read"]?.members.map(\.0) }
            #expect(readers == [[alice.userID.string]])
            await second.close()
            await scene.close()
        }
    }

    @Test("a client whose requests come to one node and another is told what is new, and not everything each time")
    func byTurns() async throws {
        try await EngineKind.onPostgreSQL {
            let scene = try await FederationScene(1)
            let name = scene[0].configuration.serverName
            let alice = try await scene[0].user("alice"), bob = try await scene[0].user("bob")
            let room = try await scene[0].room(of: alice)
            try await scene[0].homeserver.memberships.join(room, reason: nil, via: [], by: bob)
            let second = try await TestServer(
                directory: scene[0].directory, clock: ManualSurroundings(seed: 9, now: scene[0].clock.now),
                transport: scene.network.transport(of: name)
            ) { $0.serverName = name }
            try await second.homeserver.startJobs()
            let nodes = [scene[0], second]
            func typists(_ answer: JSONView) -> [String]? {
                answer["rooms"]?["join"]?[room.string]?["ephemeral"]?["events"]?.elements
                    .first { $0["type"]?.string == "m.typing" }?["content"]?["user_ids"]?.elements.compactMap(\.string)
            }
            // Once on each node, and then there is nothing new on either.
            var since = try await nodes[0].sync(alice)["next_batch"]?.string
            since = try await nodes[1].sync(alice, since: since)["next_batch"]?.string
            for turn in 0..<4 {
                let answer = try await nodes[turn % 2].sync(alice, since: since)
                #expect(answer["rooms"] == nil, "turn \(turn)")
                since = answer["next_batch"]?.string
            }
            try await nodes[1].homeserver.receipts.setTyping(60_000, in: room, by: bob)
            try await scene.eventually("the first node knows who types") {
                let answer = try await nodes[0].sync(alice, since: since)
                guard let users = typists(answer) else { return false }
                since = answer["next_batch"]?.string
                return users == [bob.userID.string]
            }
            try await nodes[0].homeserver.receipts.setTyping(nil, in: room, by: bob)
            try await scene.eventually("the second node tells that it has ended") {
                let answer = try await nodes[1].sync(alice, since: since)
                since = answer["next_batch"]?.string
                return typists(answer) == []
            }
            await second.close()
            await scene.close()
        }
    }
}
