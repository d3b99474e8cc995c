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
        try await first.changeKeys(of: alice, to: 1)
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

    /// Two servers that share a room, one of which is going to be restored from a backup.
    private final class RestoredScene {
        let network = TestNetwork()
        let silent = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let (first, second) = (ServerName(unchecked: "hs1.example"), ServerName(unchecked: "hs2.example"))
        private(set) var here: TestServer
        private(set) var there: TestServer
        let alice: Requester
        let bob: Requester
        let room: RoomID
        private let backups = TemporaryDirectory()

        init() async throws {
            here = try await Self.start(first, on: network, in: TemporaryDirectory(), silent)
            there = try await Self.start(second, on: network, in: TemporaryDirectory(), silent)
            alice = try await here.user("alice")
            bob = try await there.user("bob")
            room = try await here.room(of: alice)
            try await there.homeserver.memberships.join(room, reason: nil, via: [first], by: bob)
        }

        private static func start(
            _ name: ServerName, on network: TestNetwork, in directory: TemporaryDirectory, _ logger: Logger
        ) async throws -> TestServer {
            let server = try await TestServer(
                directory: directory,
                engine: try await SQLiteEngine(path: "\(directory.path)/roost.db", logger: logger),
                transport: network.transport(of: name)
            ) { $0.serverName = name }
            network.connect(server.homeserver)
            try await server.homeserver.startJobs()
            return server
        }

        func change(_ seed: UInt64) async throws { try await here.changeKeys(of: alice, to: seed) }

        /// Whether bob sees these keys of alice's device.
        func isKnown(_ seed: UInt64) async throws -> Bool {
            try await there.knowsKeys(of: alice, seed, for: bob)
        }

        func backUp(_ server: TestServer) async throws {
            _ = try await server.homeserver.maintenance.backUp(to: "\(backups.path)/backup")
        }

        private func restored(_ name: ServerName, _ clock: ManualSurroundings) async throws -> TestServer {
            let directory = TemporaryDirectory()
            _ = try await Backup.restore(
                from: "\(backups.path)/backup", serverName: name, to: .sqlite(path: "\(directory.path)/roost.db"),
                mediaPath: "\(directory.path)/media", scratch: directory.path, surroundings: clock.surroundings,
                logger: silent)
            return try await Self.start(name, on: network, in: directory, silent)
        }

        func restoreHere() async throws { here = try await restored(first, here.clock) }
        func restoreThere() async throws { there = try await restored(second, there.clock) }

        func eventually(_ what: Comment, _ holds: () async throws -> Bool) async throws {
            for _ in 0..<2_000 {
                if try await holds() { return }
                try await Task.sleep(for: .milliseconds(5))
                for server in [here, there] { server.clock.advance(by: 200) }
            }
            Issue.record(what)
        }

        func close() async { for server in [here, there] { await server.close() } }
    }

    @Test("a restored server asks again for devices: what changed since the backup was told to it once")
    func restored() async throws {
        let scene = try await RestoredScene()
        try await scene.change(1)
        #expect(try await scene.isKnown(1))
        try await scene.backUp(scene.there)
        await scene.there.close()
        try await scene.change(2)
        try await scene.restoreThere()
        #expect(try await scene.isKnown(2))
        await scene.close()
    }

    @Test("a restored server has others ask again for the devices that it has now")
    func restoredOwn() async throws {
        let scene = try await RestoredScene()
        try await scene.change(1)
        #expect(try await scene.isKnown(1))
        try await scene.backUp(scene.here)
        try await scene.change(2)
        try await scene.eventually("the change is heard") { try await scene.isKnown(2) }
        await scene.here.close()
        try await scene.restoreHere()
        try await scene.eventually("what is restored is heard") { try await scene.isKnown(1) }
        await scene.close()
    }

    @Test("so it does in a room that it has forgotten, once it comes back")
    func restoredOwnElsewhere() async throws {
        let scene = try await RestoredScene()
        try await scene.there.homeserver.memberships.leave(scene.room, reason: nil, by: scene.bob)
        try await scene.change(1)
        try await scene.eventually("the leave is told") { scene.there.homeserver.federation.sender.waiting.isEmpty }
        try await scene.backUp(scene.here)
        let room = try await scene.there.room(of: scene.bob)
        func join() async throws {
            try await scene.here.homeserver.memberships.join(room, reason: nil, via: [scene.second], by: scene.alice)
        }
        try await join()
        try await scene.change(2)
        try await scene.eventually("the devices are known") { try await scene.isKnown(2) }
        await scene.here.close()
        try await scene.restoreHere()
        try await join()
        try await scene.eventually("what is restored is heard") { try await scene.isKnown(1) }
        await scene.close()
    }

    @Test("so it does when it learns who was there before it was restored")
    func restoredElsewhere() async throws {
        let scene = try await RestoredScene()
        try await scene.there.homeserver.memberships.leave(scene.room, reason: nil, by: scene.bob)
        try await scene.change(1)
        try await scene.eventually("the leave is heard") {
            let state = try await scene.here.homeserver.reading.state(
                of: scene.room, key: .member(scene.bob.userID), wholeEvent: false, for: scene.alice)
            return try JSONDocument(parsing: state).root["membership"]?.isString("leave") == true
        }
        try await scene.backUp(scene.here)
        try await scene.there.homeserver.memberships.join(
            scene.room, reason: nil, via: [scene.first], by: scene.bob)
        #expect(try await scene.isKnown(1))
        await scene.here.close()
        try await scene.restoreHere()
        try await scene.eventually("those of whom it knows have been told") {
            try await scene.here.homeserver.database.backgroundMigration("restored devices") == nil
        }
        // Nobody is there to tell.
        try await scene.change(2)
        #expect(try await scene.isKnown(1))
        try await scene.there.say("bob is still here", in: scene.room, by: scene.bob)
        try await scene.eventually("what has changed is heard") { try await scene.isKnown(2) }
        await scene.close()
    }

    @Test("so it does when it learns who of its own was there")
    func restoredJoin() async throws {
        let scene = try await RestoredScene()
        let anna = try await scene.here.user("anna")
        try await scene.backUp(scene.here)
        try await scene.here.homeserver.memberships.join(scene.room, reason: nil, via: [], by: anna)
        try await scene.here.changeKeys(of: anna, to: 2)
        try await scene.eventually("her devices are known, after all that was told of them") {
            let isKnown = try await scene.there.keys(of: anna, for: scene.bob) != nil
            return isKnown && scene.network.exchanges.contains { $0.target.contains("/user/devices/%40anna") }
        }
        await scene.here.close()
        try await scene.restoreHere()
        try await scene.eventually("those of whom it knows have been told") {
            try await scene.here.homeserver.database.backgroundMigration("restored devices") == nil
        }
        try await scene.there.say("anna is still here", in: scene.room, by: scene.bob)
        try await scene.eventually("that she has none now is heard") {
            try await scene.there.keys(of: anna, for: scene.bob) == nil
        }
        await scene.close()
    }

    @Test("changed devices of however many users are told, also to a server that was away, a part at a time")
    func many() async throws {
        let (scene, _) = try await scene()
        let (home, away) = (scene[0].homeserver, scene[2].configuration.serverName)
        scene.network.cut(away)
        var write = Write()
        var names: Set<String> = []
        for number in 0..<FederationQueue.mostEDUs + FederationSender.pageSize {
            let (nid, userID) = try await home.accounts.createAccount(
                localpart: "user\(number)", password: nil, admin: false)
            write.setMembership(.join, of: nid, in: RoomNID(1), event: EventNID(1), position: write.takePosition())
            write.changeDeviceList(of: nid)
            names.insert(userID.string)
        }
        try await home.database.write(write)
        func told(_ server: ServerName) throws -> Set<String> {
            let edus = try scene.network.exchanges.filter { $0.to == server && $0.target.contains("/send/") }
                .flatMap { try JSONDocument(parsing: $0.body).root["edus"]?.elements.map(\.self) ?? [] }
            return Set(edus.compactMap { $0["content"]?["user_id"]?.string })
        }
        let other = scene[1].configuration.serverName
        try await scene.eventually("who is there has been told") {
            let known = try told(other)
            return known.isSuperset(of: names) && home.federation.sender.waiting == [away]
        }
        scene.network.mend(away)
        try await scene.eventually("who was away has been told") { home.federation.sender.waiting.isEmpty }
        let known = try told(away)
        #expect(known.isSuperset(of: names))
        await scene.close()
    }

    @Test("where there are more changes than a queue holds, they are looked up later; none is left out")
    func tooMany() {
        var queue = FederationQueue()
        for number in 0...FederationQueue.mostEDUs {
            #expect(queue.behind == nil)
            queue.add(EDU("m.device_list_update", [:], replacing: "\(number)", position: Int64(7 + number)))
        }
        #expect(queue.behind == 6 && queue.edus.isEmpty && queue.owedFrom == 7)
        // What comes then is found with the others.
        queue.add(EDU("m.device_list_update", [:], replacing: "later", position: 5_000))
        #expect(queue.edus.isEmpty && queue.isToLookUp)
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
