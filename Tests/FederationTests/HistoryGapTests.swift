import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Gaps in a room's history")
struct HistoryGapTests {
    @Test("a gap that nobody can fill keeps no other one from being filled")
    func hopeless() async throws {
        let scene = try await FederationScene(2)
        let alice = try await scene[0].user("alice"), bob = try await scene[1].user("bob")
        let room = try await scene[0].room(of: alice, version: "11")
        let first = scene[0].configuration.serverName, second = scene[1].configuration.serverName
        let evil = HostileServer("evil.example", on: scene.network, clock: scene[0].clock)
        try await scene[0].say("before bob came", in: room, by: alice)
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [first], by: bob)
        let mallory = evil.user("mallory")
        let place = try await evil.join(room, as: mallory, at: first)
        try await scene.eventually("mallory's join is heard of") {
            let members = try await scene[1].homeserver.reading.joinedMembers(of: room, for: bob)
            return String(decoding: members, as: UTF8.self).contains("mallory")
        }
        let state = place.state.values.map { $0 }
        scene.network.forge { request in
            guard request.destination.string == "evil.example" else { return nil }
            let answer: JSON
            if request.target.contains("/state_ids/") {
                answer = ["pdu_ids": .array(state.map { .string($0.eventID.string) }), "auth_chain_ids": []]
            } else if request.target.contains("/send/") {
                answer = ["pdus": [:]]
            } else {
                return request.target.contains("/key/") ? nil : ServerResponse(status: 404, body: Array("{}".utf8))
            }
            return ServerResponse(status: 200, body: answer.encoded())
        }
        // Events upon what nobody gets to see: each leaves a gap that stays.
        for number in 0..<6 {
            let hidden = try evil.event(
                "m.room.message", content: ["body": .string("hidden \(number)")], by: mallory, in: place)
            let shown = try evil.event(
                "m.room.message", content: ["body": .string("shown \(number)")], by: mallory, in: place,
                previous: [hidden.eventID])
            try await evil.send([shown.root.json], id: "shown\(number)", to: second)
        }
        try await scene.eventually("what is behind the gaps is there") {
            try await scene[1].history(of: room, for: bob, page: 100).count { $0.hasPrefix("shown") } == 6
        }
        try await scene.eventually("what was before is fetched all the same") {
            try await scene[1].history(of: room, for: bob, page: 100).contains("before bob came")
        }
        await scene.close()
    }

    @Test("what only a server has that has left the room is fetched from there, if the room doesn't keep it out")
    func left() async throws {
        let scene = try await FederationScene(2)
        let alice = try await scene[0].user("alice"), bob = try await scene[1].user("bob")
        let room = try await scene[0].room(of: alice, version: "11")
        try await scene[0].say("before bob came", in: room, by: alice)
        try await scene[1].homeserver.memberships.join(
            room, reason: nil, via: [scene[0].configuration.serverName], by: bob)
        try await scene[0].homeserver.memberships.leave(room, reason: nil, by: alice)
        try await scene.eventually("the leave is heard") {
            let members = try await scene[1].homeserver.reading.joinedMembers(of: room, for: bob)
            return !String(decoding: members, as: UTF8.self).contains("alice")
        }
        try await scene.eventually("it is fetched") {
            try await scene[1].history(of: room, for: bob, page: 100).contains("before bob came")
        }
        await scene.close()
    }
}
