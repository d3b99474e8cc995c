import Homeserver
import MatrixCore
import RoostTestSupport
import Testing

@testable import Database

@Suite("Large rooms")
struct LargeRoomTests {
    @Test("are used at once, and all of their members are known soon after")
    func join() async throws {
        let scene = try await FederationScene(1)
        let alice = try await scene[0].user("alice")
        let room = try LargeRoom(members: 600, servers: 40, on: scene.network, clock: scene[0].clock)
        try await scene[0].homeserver.memberships.join(room.roomID, reason: nil, via: [room.resident], by: alice)
        try await scene[0].say("here I am", in: room.roomID, by: alice)
        #expect(try await scene.texts(in: room.roomID, for: alice, on: scene[0]) == ["here I am"])
        let answer = try await scene[0].homeserver.reading.joinedMembers(of: room.roomID, for: alice)
        let members = try JSONDocument(parsing: answer, limits: .envelope).root["joined"]?.members.map(\.0)
        #expect(members?.count == 602)
        let record = try #require(try await scene[0].homeserver.database.room(room.roomID))
        #expect(record.partialJoin == nil)
        let servers = try await scene[0].homeserver.database.read { reader in
            try await scene[0].homeserver.database.servers(in: record.nid, reader)
        }
        #expect(servers.count == 41)
        #expect(servers.reduce(0) { $0 + $1.joined } == 602)
        let report = try await ConsistencyCheck(scene[0].homeserver.database).run()
        #expect(report.problems == [])
        await scene.close()
    }
}
