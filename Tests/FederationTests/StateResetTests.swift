import Homeserver
import MatrixCore
import RoostTestSupport
import Testing

@testable import Database

@Suite("Attempts to set a room's state back")
struct StateResetTests {
    /// Which events of the fork an order delivers when; two servers get them in different ones.
    private struct Delivery {
        var random: SeededGenerator
        mutating func order(_ count: Int) -> [Int] { Array(0..<count).shuffled(using: &random) }
    }

    @Test(
        "A01 what somebody says upon the time when they had power, and an accomplice merges, takes nothing back",
        arguments: ["6", "10", "11", "12"], [1, 2, 3] as [UInt64])
    func oldPower(version: String, seed: UInt64) async throws {
        let scene = try await FederationScene(2)
        let names = scene.servers.map(\.configuration.serverName)
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let room = try await scene[0].room(of: alice, version: version)
        try await scene[1].homeserver.memberships.join(room, reason: nil, via: [names[0]], by: bob)
        let evil = HostileServer("evil.example", on: scene.network, clock: scene[0].clock)
        let mallory = evil.user("mallory"), oscar = evil.user("oscar")
        _ = try await evil.join(room, as: oscar, at: names[0])
        func levels(_ change: (inout JSON) -> Void) async throws {
            let known = try await scene[0].homeserver.reading.state(
                of: room, key: .powerLevels, wholeEvent: false, for: alice)
            var content = try JSONDocument(parsing: known).root.json
            change(&content)
            _ = try await scene[0].homeserver.sending.setState(.powerLevels, content: content, in: room, by: alice)
        }
        func set(_ key: StateKey, _ content: JSON) async throws {
            _ = try await scene[0].homeserver.sending.setState(key, content: content, in: room, by: alice)
        }
        // Mallory had power once, knew the room then, and has lost it since.
        try await levels { $0["users"]?[mallory.string] = 50 }
        var old = try await evil.join(room, as: mallory, at: names[0])
        let was = old
        try await levels { $0["users"]?[mallory.string] = nil }
        try await scene[0].homeserver.memberships.remove(mallory, from: room, .ban, reason: nil, by: alice)
        try await set(.historyVisibility, ["history_visibility": "joined"])
        try await set(StateKey("m.room.topic"), ["topic": "as it is"])
        scene[0].clock.advance(by: 1_000)
        try await scene.eventually("both servers are there") {
            let all = try await scene[1].homeserver.reading.state(of: room, for: bob)
            return String(decoding: all, as: UTF8.self).contains("as it is")
        }
        let present = try await state(of: room, on: scene[0])

        // A fork upon the old days, backdated, in which she does all that she could do then.
        var fork: [Event] = []
        func act(_ type: String, _ key: String, _ content: JSON) throws {
            let event = try evil.event(type, stateKey: key, content: content, by: mallory, in: old)
            fork.append(event)
            old.state[StateKey(type, key)] = event
            old.tip = event
        }
        try act("m.room.topic", "", ["topic": "owned"])
        try act("m.room.join_rules", "", ["join_rule": "invite"])
        try act("m.room.history_visibility", "", ["history_visibility": "world_readable"])
        try act("m.room.member", bob.userID.string, ["membership": "leave"])
        try act("m.room.member", evil.user("sock").string, ["membership": "invite"])
        var levelsThen = try #require(was.state[.powerLevels]).content.json
        levelsThen["users"]?[evil.user("sock").string] = 50
        levelsThen["invite"] = 0
        try act("m.room.power_levels", "", levelsThen)
        // An accomplice, who is in the room rightly, rests on both.
        let record = try #require(try await scene[0].homeserver.database.room(room))
        let tips = try await scene[0].homeserver.database.events(record.extremities).map(\.eventID)
        var now = old
        now.state = [:]
        for (key, id) in present {
            let stored = try #require(try await scene[0].homeserver.database.event(id))
            let known = try #require(RoomVersion.named(version))
            now.state[key] = try Event(stored: stored.json, eventID: id, version: known)
        }
        let merge = try evil.event(
            "m.room.message", content: ["msgtype": "m.text", "body": "merge"], by: oscar, in: now,
            previous: tips + [old.tip.eventID])

        let told = fork
        var delivery = Delivery(random: SeededGenerator(seed: seed))
        scene.network.forge { request in
            guard request.destination == evil.name, request.target.contains("/get_missing_events/") else { return nil }
            let answer: JSON = ["events": .array(told.map(\.root.json))]
            return ServerResponse(status: 200, body: answer.encoded())
        }
        for (number, name) in names.enumerated() {
            for index in delivery.order(fork.count) {
                try await evil.send([fork[index].root.json], id: "fork\(number).\(index)", to: name)
            }
            try await evil.send([merge.root.json], id: "merge\(number)", to: name)
        }
        for index in 0..<2 {
            let user = index == 0 ? alice : bob
            try await scene.eventually("the merge is there") {
                try await scene.texts(in: room, for: user, on: scene[index]).contains("merge")
            }
        }
        // The room goes on, and is what it was.
        try await scene[0].say("alice", in: room, by: alice)
        try await scene[1].say("bob", in: room, by: bob)
        try await scene.eventually("both talk") {
            let here = try await scene.texts(in: room, for: alice, on: scene[0])
            let there = try await scene.texts(in: room, for: bob, on: scene[1])
            return here.contains("bob") && there.contains("alice")
        }
        for index in 0..<2 {
            let after = try await state(of: room, on: scene[index])
            #expect(after == present, "version \(version), seed \(seed), server \(index + 1)")
            let report = try await ConsistencyCheck(scene[index].homeserver.database).run()
            #expect(report.problems == [])
        }
        await scene.close()
    }

    /// The room's current state: for each key the event.
    private func state(of room: RoomID, on server: TestServer) async throws -> [StateKey: EventID] {
        let database = server.homeserver.database
        let record = try #require(try await database.room(room))
        return try await database.read { reader in
            let entries = try await StateTree(rows: database.stateRows, room: record.nid).entries(
                in: record.state, reader)
            let keys = try await database.stateKeys(entries.map(\.key))
            var state: [StateKey: EventID] = [:]
            for stored in try await database.events(entries.map(\.event), reader) {
                if let key = stored.stateKey.flatMap({ keys[$0] }) { state[key] = stored.eventID }
            }
            return state
        }
    }
}
