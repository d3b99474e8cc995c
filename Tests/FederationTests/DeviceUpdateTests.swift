import Logging
import MatrixCore
import RoostTestSupport
import Testing

@testable import Database
@testable import Homeserver

@Suite("Device lists between servers")
struct DeviceUpdateTests {
    /// Three servers with a user of each in one room.
    private func scene() async throws -> (FederationScene, Requester) {
        let scene = try await FederationScene(3)
        let alice = try await scene[0].user("alice")
        let room = try await scene[0].room(of: alice)
        for server in [scene[1], scene[2]] {
            let user = try await server.user("bob")
            try await server.homeserver.memberships.join(
                room, reason: nil, via: [scene[0].configuration.serverName], by: user)
        }
        try await scene.eventually("all has been told") { scene[0].homeserver.federation.sender.waiting.isEmpty }
        return (scene, alice)
    }

    private func updates(_ scene: FederationScene, to server: ServerName) -> Int {
        scene.network.exchanges.filter {
            $0.to == server && String(decoding: $0.body, as: UTF8.self).contains("m.device_list_update")
        }.count
    }

    @Test("what one server has missed is told to that one, and nothing waits for others because of it")
    func missed() async throws {
        let (scene, alice) = try await scene()
        let (first, away) = (scene[0], scene[2].configuration.serverName)
        scene.network.cut(away)
        let keys: JSON = [
            "device_keys": SigningTestKey(seed: 1).deviceKeys(of: alice.userID.string, alice.deviceID)
        ]
        _ = try await first.homeserver.deviceKeys.upload(keys.view, for: alice)
        let other = scene[1].configuration.serverName
        try await scene.eventually("who is there has been told") {
            updates(scene, to: other) == 1 && updates(scene, to: away) > 0
                && first.homeserver.federation.sender.waiting == [away]
        }
        // As after a restart, what it missed is looked up.
        await first.homeserver.federation.stop()
        first.clock.advance(by: 10_000)
        let again = try await TestServer(
            directory: first.directory, clock: ManualSurroundings(seed: 9, now: first.clock.now),
            transport: scene.network.transport(of: first.configuration.serverName)
        ) { $0.serverName = first.configuration.serverName }
        scene.network.connect(again.homeserver)
        scene.network.mend(away)
        let before = updates(scene, to: away)
        try await again.homeserver.startJobs()
        try await scene.eventually("who was away is told, and nothing waits") {
            again.clock.advance(by: 200)
            return updates(scene, to: away) > before && again.homeserver.federation.sender.waiting.isEmpty
        }
        #expect(updates(scene, to: other) == 1)
        await again.close()
        await scene.close()
    }

    @Test("a restored server asks again for devices: what changed since the backup was told to it once")
    func restored() async throws {
        let network = TestNetwork()
        let silent = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        func start(_ directory: TemporaryDirectory, _ name: ServerName) async throws -> TestServer {
            let server = try await TestServer(
                directory: directory,
                engine: try await SQLiteEngine(path: "\(directory.path)/roost.db", logger: silent),
                transport: network.transport(of: name)
            ) { $0.serverName = name }
            network.connect(server.homeserver)
            try await server.homeserver.startJobs()
            return server
        }
        let (first, second) = (ServerName(unchecked: "hs1.example"), ServerName(unchecked: "hs2.example"))
        let here = try await start(TemporaryDirectory(), first), there = try await start(TemporaryDirectory(), second)
        let alice = try await here.user("alice"), bob = try await there.user("bob")
        let room = try await here.room(of: alice)
        try await there.homeserver.memberships.join(room, reason: nil, via: [first], by: bob)
        func change(_ seed: UInt64) async throws {
            let keys: JSON = [
                "device_keys": SigningTestKey(seed: seed).deviceKeys(of: alice.userID.string, alice.deviceID)
            ]
            _ = try await here.homeserver.deviceKeys.upload(keys.view, for: alice)
        }
        func known(on server: TestServer) async throws -> [UInt8]? {
            let asked: JSON = [alice.userID.string: []]
            let answer = try await server.homeserver.deviceKeys.query(asked.view, for: bob)
            return try answer["device_keys"]?[alice.userID.string]?[alice.deviceID]?["keys"]?.canonical()
        }
        try await change(1)
        let old = try await known(on: there)
        let directory = TemporaryDirectory()
        _ = try await there.homeserver.maintenance.backUp(to: "\(directory.path)/backup")
        await there.close()
        try await change(2)
        _ = try await Backup.restore(
            from: "\(directory.path)/backup", serverName: second, to: .sqlite(path: "\(directory.path)/roost.db"),
            mediaPath: "\(directory.path)/media", scratch: directory.path, surroundings: there.clock.surroundings,
            logger: silent)
        let again = try await start(directory, second)
        let new = try await known(on: again)
        #expect(old != nil && new != nil && new != old)
        await again.close()
        await here.close()
    }

    @Test("a change that a server hasn't taken yet is owed to it, whatever else has been told")
    func owed() throws {
        var queue = FederationQueue()
        queue.add(EDU("m.typing", [:]))
        #expect(queue.owedFrom == nil)
        queue.add(EDU("m.device_list_update", [:], replacing: "@a:x", position: 7))
        #expect(queue.owedFrom == 7)
        for number in 0..<2 * FederationQueue.mostEDUs { queue.add(EDU("m.typing", [:], replacing: "\(number)")) }
        #expect(queue.owedFrom == 7 && queue.edus.count == FederationQueue.mostEDUs)
        queue.taken = 7
        queue.edus = []
        #expect(queue.owedFrom == 7)
        queue.taken = nil
        queue.frozen = FederationTransaction(id: "1", body: [], first: 7, events: [], edus: 1, toDevice: nil)
        #expect(queue.owedFrom == 7)
    }
}
