import Homeserver
import MatrixCore
import RoostTestSupport
import Synchronization
import Testing

@testable import Database

@Suite("Peers that take their time")
struct SlowPeerTests {
    @Test("A16 however many servers never answer, the others are told what is said")
    func sending() async throws {
        let held = HeldTransports()
        let scene = try await FederationScene(
            2, wrap: { held.add($0) { $0.destination.string.hasPrefix("slow") && $0.target.contains("/send/") } })
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let room = try await scene[0].room(of: alice, version: "11")
        let name = scene[0].configuration.serverName
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [name], by: bob)
        try await scene[0].say("first", in: room, by: alice)
        try await scene.eventually("the other server hears") {
            try await scene.texts(in: room, for: bob, on: scene[1]) == ["first"]
        }
        // More of them than are sent to at the same time.
        for number in 0..<210 {
            let slow = HostileServer("slow\(number).example", on: scene.network, clock: scene[0].clock)
            _ = try await slow.join(room, as: slow.user("s"), at: name)
        }
        try await scene[0].say("second", in: room, by: alice)
        try await scene.eventually("the slow ones are told", { held[0].held.count >= 100 })
        try await scene[0].say("third", in: room, by: alice)
        try await scene.eventually("the other server hears nevertheless") {
            try await scene.texts(in: room, for: bob, on: scene[1]) == ["first", "second", "third"]
        }
        #expect(held[0].held.count == 100)
        held[0].letGo()
        await scene.close()
    }

    @Test("A16 keys come in time, and from all who answer, however many servers don't; those are named")
    func keys() async throws {
        let held = HeldTransports()
        let scene = try await FederationScene(2, wrap: { held.add($0) { $0.destination.string.hasPrefix("slow") } })
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let keys = SigningTestKey(seed: 1).deviceKeys(of: bob.userID.string, bob.deviceID)
        let oneTime: JSON = ["signed_curve25519:A": ["key": "A", "signatures": [:]]]
        let upload: JSON = ["device_keys": keys, "one_time_keys": oneTime]
        _ = try await scene[1].homeserver.deviceKeys.upload(upload.view, for: bob)
        // Bob's server comes last in whatever order they are asked.
        let slow = (0..<60).map { ServerName(unchecked: "slow\($0).example") }
        var asked: JSON = [bob.userID.string: []]
        var claimed: JSON = [bob.userID.string: [bob.deviceID: "signed_curve25519"]]
        for server in slow {
            asked["@s:\(server)"] = []
            claimed["@s:\(server)"] = ["D": "signed_curve25519"]
        }
        func hurry<T: Sendable>(_ body: @escaping @Sendable () async throws -> T) async throws -> (T, Int64) {
            let start = scene[0].clock.now
            let task = Task { (try await body(), scene[0].clock.now - start) }
            let isOver = Mutex(false)
            Task {
                _ = await task.result
                isOver.withLock { $0 = true }
            }
            try await scene.eventually("there is an answer") { isOver.withLock { $0 } }
            return try await task.value
        }
        let deviceKeys = scene[0].homeserver.deviceKeys
        let (questions, claims) = (asked, claimed)
        let (found, time) = try await hurry {
            try await deviceKeys.query(questions.view, timeout: 10_000, for: alice)
        }
        #expect(found["device_keys"]?[bob.userID.string]?[bob.deviceID] != nil)
        #expect(Set(found["failures"]?.objectValue?.map(\.key) ?? []) == Set(slow.map(\.string)))
        #expect(time < 20_000)
        let (taken, longer) = try await hurry { try await deviceKeys.claim(claims.view, timeout: 10_000) }
        #expect(taken["one_time_keys"]?[bob.userID.string]?[bob.deviceID]?["signed_curve25519:A"] != nil)
        #expect(Set(taken["failures"]?.objectValue?.map(\.key) ?? []) == Set(slow.map(\.string)))
        #expect(longer < 20_000)
        held[0].letGo()
        await scene.close()
    }

    @Test(
        "A16 rooms whose gaps nobody fills, however many, hold no other room's up, and events that can't be placed no later ones"
    )
    func filling() async throws {
        let held = HeldTransports()
        let scene = try await FederationScene(
            1, wrap: { held.add($0) { $0.destination.string == "slow.example" && !$0.target.contains("/key/") } })
        let alice = try await scene[0].user("alice")
        let name = scene[0].configuration.serverName
        let slow = HostileServer("slow.example", on: scene.network, clock: scene[0].clock)
        func place(of server: HostileServer) async throws -> HostileServer.Place {
            let room = try await scene[0].room(of: alice, version: "11")
            return try await server.join(room, as: server.user("m"), at: name)
        }
        func upon(_ place: HostileServer.Place, _ text: String, by server: HostileServer) throws -> [Event] {
            let content: JSON = ["msgtype": "m.text", "body": .string(text)]
            let first = try server.event("m.room.message", content: content, by: server.user("m"), in: place)
            let second = try server.event(
                "m.room.message", content: content, by: server.user("m"), in: place, previous: [first.eventID])
            return [first, second]
        }
        // Twenty rooms whose server never answers: their turns don't end.
        for number in 0..<20 {
            let events = try upon(try await place(of: slow), "slow", by: slow)
            try await slow.send([events[1].root.json], id: "slow\(number)", to: name)
        }
        try await scene.eventually("they are waited for") { held[0].held.count >= 20 }
        // A room with more events that can't be placed than are looked at together, and then one that can.
        let good = HostileServer("good.example", on: scene.network, clock: scene[0].clock, seed: 12)
        let room = try await place(of: good)
        let unplaceable = try (0..<150).map { try upon(room, "lost \($0)", by: good)[1] }
        for start in stride(from: 0, to: 150, by: 50) {
            try await good.send(
                unplaceable[start..<start + 50].map(\.root.json), id: "lost\(start)", to: name)
        }
        let events = try upon(room, "found", by: good)
        let own = good.name
        scene.network.forge { request in
            guard request.destination == own else { return nil }
            guard request.target.contains("/get_missing_events/"), let body = request.body,
                String(decoding: body, as: UTF8.self).contains(events[1].eventID.string)
            else { return ServerResponse(status: 404, body: Array(#"{"errcode":"M_NOT_FOUND","error":"no"}"#.utf8)) }
            let answer: JSON = ["events": [events[0].root.json]]
            return ServerResponse(status: 200, body: answer.encoded())
        }
        try await good.send([events[1].root.json], id: "found", to: name)
        try await scene.eventually("what can be placed is placed") {
            try await scene[0].history(of: room.roomID, for: alice).count { $0 == "found" } == 2
        }
        held[0].letGo()
        await scene.close()
    }
}
