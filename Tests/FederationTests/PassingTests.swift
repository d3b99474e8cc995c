import Homeserver
import MatrixCore
import RoostTestSupport
import Testing

@testable import Database

@Suite("What passes between servers: devices, messages to them, typing, presence")
struct PassingTests {
    /// Two servers and a room in which both have a user.
    private struct Scene {
        let scene: FederationScene
        let alice: Requester
        let bob: Requester
        let room: RoomID
        var names: [ServerName] { scene.servers.map(\.configuration.serverName) }

        init(wrap: (any FederationTransport) -> any FederationTransport = { $0 }) async throws {
            scene = try await FederationScene(2, wrap: wrap)
            alice = try await scene[0].user("alice")
            bob = try await scene[1].user("bob")
            room = try await scene[0].room(of: alice)
            try await join()
            try await scene.eventually("both are there") { try await self.aliceSees("join") }
        }

        func join() async throws {
            try await scene[1].homeserver.memberships.join(room, reason: nil, via: [names[0]], by: bob)
        }

        func aliceSees(_ membership: String) async throws -> Bool {
            let state = try await scene[0].homeserver.reading.state(
                of: room, key: .member(bob.userID), wholeEvent: false, for: alice)
            return try JSONDocument(parsing: state).root["membership"]?.isString(membership) == true
        }

        /// Gives alice's device other keys.
        func change(_ seed: UInt64) async throws { try await scene[0].changeKeys(of: alice, to: seed) }

        /// Whether bob gets these.
        func isKnown(_ seed: UInt64) async throws -> Bool {
            try await scene[1].knowsKeys(of: alice, seed, for: bob)
        }
    }

    private func lists(_ answer: JSONView, _ which: String) -> [String] {
        answer["device_lists"]?[which]?.elements.compactMap(\.string) ?? []
    }

    @Test(
        "changes of devices are told while a room is shared, and the keys are those of now after joining, leaving and absence"
    )
    func deviceLists() async throws {
        let scene = try await Scene()
        let name = scene.alice.userID.string
        var since = try await scene.scene[1].sync(scene.bob)["next_batch"]?.string
        try await scene.change(1)
        try await scene.scene.eventually("the change is told") {
            lists(try await scene.scene[1].sync(scene.bob, since: since), "changed").contains(name)
        }
        #expect(try await scene.isKnown(1))

        // A server that was away is told when it is back.
        since = try await scene.scene[1].sync(scene.bob)["next_batch"]?.string
        scene.scene.network.cut(scene.names[1])
        try await scene.change(2)
        scene.scene[0].clock.advance(by: 5_000)
        scene.scene.network.mend(scene.names[1])
        try await scene.scene.eventually("the change is told afterwards") {
            lists(try await scene.scene[1].sync(scene.bob, since: since), "changed").contains(name)
        }
        #expect(try await scene.isKnown(2))

        // Who shares no room is told nothing, and asks again when they do.
        since = try await scene.scene[1].sync(scene.bob)["next_batch"]?.string
        try await scene.scene[1].homeserver.memberships.leave(scene.room, reason: nil, by: scene.bob)
        #expect(lists(try await scene.scene[1].sync(scene.bob, since: since), "left") == [name])
        try await scene.scene.eventually("the leave is heard") { try await scene.aliceSees("leave") }
        try await scene.change(3)
        since = try await scene.scene[1].sync(scene.bob)["next_batch"]?.string
        try await scene.join()
        try await scene.scene.eventually("a shared room is news about devices") {
            lists(try await scene.scene[1].sync(scene.bob, since: since), "changed").contains(name)
        }
        #expect(try await scene.isKnown(3))
        await scene.scene.close()
    }

    @Test("a list of devices that changes while it is on its way isn't taken for the last word")
    func changeUnderWay() async throws {
        let held = HeldTransports()
        let scene = try await Scene { held.add($0) { $0.target.contains("/user/devices/") } }
        try await scene.change(1)
        let since = try await scene.scene[1].sync(scene.bob)["next_batch"]?.string
        // The answer is made, and comes late.
        held[1].comesLate()
        let first = try await withThrowingTaskGroup(of: Bool.self) { group in
            group.addTask { try await scene.isKnown(1) }
            try await scene.scene.eventually("the list is asked for") { !held[1].held.isEmpty }
            try await scene.change(2)
            try await scene.scene.eventually("the change is told") {
                lists(try await scene.scene[1].sync(scene.bob, since: since), "changed")
                    .contains(scene.alice.userID.string)
            }
            held[1].letGo()
            return try await group.next() ?? nil
        }
        #expect(first == true)
        #expect(try await scene.isKnown(2))
        await scene.scene.close()
    }

    @Test(
        "messages to devices of a server that is stopped arrive once, in order, when it is back"
    )
    func toDevice() async throws {
        let scene = try await Scene()
        let since = try await scene.scene[1].sync(scene.bob)["next_batch"]?.string
        scene.scene.network.cut(scene.names[1])
        func send(_ number: Int) async throws {
            let messages: JSON = [scene.bob.userID.string: [scene.bob.deviceID: ["n": .integer(Int64(number))]]]
            try await scene.scene[0].homeserver.toDevice.send(
                "org.example", try JSONDocument(parsing: messages.encoded()).root, transactionID: "t\(number)",
                by: scene.alice)
        }
        for number in 0..<150 { try await send(number) }
        scene.scene.network.mend(scene.names[1])
        // An answer that gets lost has them sent again, and not arrive again.
        scene.scene.network.loseAnswers(of: scene.names[1])
        scene.scene[0].clock.advance(by: 120_000)
        for _ in 0..<20 { await Task.yield() }
        scene.scene.network.loseAnswers(of: scene.names[1], false)
        var found: [Int64] = []
        var token = since
        try await scene.scene.eventually("all have arrived") {
            let answer = try await scene.scene[1].sync(scene.bob, since: token)
            found += answer["to_device"]?["events"]?.elements.compactMap { $0["content"]?["n"]?.integer } ?? []
            token = answer["next_batch"]?.string
            return found.count >= 150
        }
        #expect(found == (0..<150).map(Int64.init))
        try await send(150)
        try await scene.scene.eventually("one more arrives") {
            let answer = try await scene.scene[1].sync(scene.bob, since: token)
            return answer["to_device"]?["events"]?.elements.compactMap { $0["content"]?["n"]?.integer } ?? [] == [150]
        }
        await scene.scene.close()
    }

    @Test("A10 a message to a device that is nested as deep as it may be keeps nothing from the server it goes to")
    func deepMessage() async throws {
        let scene = try await Scene()
        let since = try await scene.scene[1].sync(scene.bob)["next_batch"]?.string
        for levels in 90..<98 {
            let deep = (0..<levels).reduce(JSON.array([])) { inner, _ in .array([inner]) }
            let messages: JSON = [scene.bob.userID.string: [scene.bob.deviceID: ["deep": deep]]]
            try await scene.scene[0].homeserver.toDevice.send(
                "org.example", try JSONDocument(parsing: messages.encoded(), limits: .own).root,
                transactionID: "t\(levels)", by: scene.alice)
        }
        var found = 0
        var token = since
        try await scene.scene.eventually("all have arrived") {
            let answer = try await scene.scene[1].sync(scene.bob, since: token)
            found += answer["to_device"]?["events"]?.count ?? 0
            token = answer["next_batch"]?.string
            return found >= 8
        }
        await scene.scene.close()
    }

    @Test("a server that can't be asked for keys is named, and the keys of others come")
    func keysOfTheGone() async throws {
        let scene = try await Scene()
        try await scene.change(1)
        scene.scene.network.forge { request in
            // Answers with what is no answer, after all the others.
            request.destination.string == "nonsense.example" ? ServerResponse(status: 200, body: Array("[".utf8)) : nil
        }
        let body: JSON = [
            scene.alice.userID.string: [], "@somebody:gone.example": [], "@somebody:nonsense.example": [],
        ]
        let answer = try await scene.scene[1].homeserver.deviceKeys.query(
            try JSONDocument(parsing: body.encoded()).root, for: scene.bob)
        #expect(answer["device_keys"]?[scene.alice.userID.string]?[scene.alice.deviceID] != nil)
        #expect(Set(answer["failures"]?.objectValue?.map(\.key) ?? []) == ["gone.example", "nonsense.example"])
        let claim: JSON = [
            "@somebody:gone.example": ["X": "signed_curve25519"],
            scene.alice.userID.string: [scene.alice.deviceID: "signed_curve25519"],
        ]
        let claimed = try await scene.scene[1].homeserver.deviceKeys.claim(
            try JSONDocument(parsing: claim.encoded()).root)
        #expect(claimed["failures"]?["gone.example"] != nil)
        await scene.scene.close()
    }

    @Test("who leaves is typing no more, and neither typing nor presence crosses after that")
    func afterLeaving() async throws {
        let scene = try await Scene()
        func typing() async throws -> [String] {
            let events = try await scene.scene[0].sync(scene.alice)["rooms"]?["join"]?[scene.room.string]?[
                "ephemeral"]?[
                    "events"]
            let event = events?.elements.first { $0["type"]?.isString("m.typing") == true }
            return event?["content"]?["user_ids"]?.elements.compactMap(\.string) ?? []
        }
        try await scene.scene[1].homeserver.receipts.setTyping(120_000, in: scene.room, by: scene.bob)
        try await scene.scene.eventually("typing is seen") { try await typing() == [scene.bob.userID.string] }
        try await scene.scene[1].homeserver.receipts.setTyping(120_000, in: scene.room, by: scene.bob)
        try await scene.scene[1].homeserver.memberships.leave(scene.room, reason: nil, by: scene.bob)
        try await scene.scene.eventually("the leave is heard") { try await scene.aliceSees("leave") }
        #expect(try await typing() == [])
        // What the other server says of its users is taken of members only, and it is told nothing any more.
        let asked = scene.scene.network.exchanges.count
        try await scene.scene[0].homeserver.receipts.setTyping(30_000, in: scene.room, by: scene.alice)
        try await scene.scene[0].homeserver.presence.set(.online, status: "alone", for: scene.alice)
        for _ in 0..<20 {
            scene.scene[0].clock.advance(by: 1_000)
            for _ in 0..<20 { await Task.yield() }
        }
        #expect(
            !scene.scene.network.exchanges.dropFirst(asked).contains {
                $0.from == scene.names[0] && $0.target.contains("/send/")
            })
        await scene.scene.close()
    }
}
