import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Lists of devices", .onEachEngine)
struct DeviceListTests {
    private struct Lists: Equatable, CustomStringConvertible {
        var changed: Set<String> = []
        var left: Set<String> = []
        var description: String { "changed \(changed.sorted()), left \(left.sorted())" }
    }

    private func lists(_ json: JSONView?) -> Lists {
        Lists(
            changed: Set(json?["changed"]?.elements.compactMap(\.string) ?? []),
            left: Set(json?["left"]?.elements.compactMap(\.string) ?? []))
    }

    private func token(_ sync: JSONView) throws -> String { try #require(sync["next_batch"]?.string) }

    private func renew(_ user: Requester, seed: UInt64, on server: TestServer) async throws {
        let keys = SigningTestKey(seed: seed).deviceKeys(of: user.userID.string, user.deviceID)
        _ = try await server.homeserver.deviceKeys.upload(JSON.object(["device_keys": keys]).view, for: user)
    }

    @Test(
        "keys, names, cross-signing keys, signatures and ends of devices are told to those who share a room, and to oneself"
    )
    func changes() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let stranger = try await server.user("stranger")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        var since: [String: String] = [:]
        let readers = [alice, bob, stranger]
        for reader in readers {
            let first = try await server.sync(reader)
            #expect(first["device_lists"] == nil)
            since[reader.userID.string] = try token(first)
        }
        func expect(_ expected: Set<String>, sourceLocation: SourceLocation = #_sourceLocation) async throws {
            for reader in readers {
                let name = reader.userID.string
                let before = try #require(since[name])
                let answer = try await server.sync(reader, since: before)
                let isConcerned = reader.userID != stranger.userID
                #expect(
                    lists(answer["device_lists"]) == Lists(changed: isConcerned ? expected : []), "\(name)",
                    sourceLocation: sourceLocation)
                let to = try token(answer)
                let from = try await server.homeserver.sync.position(of: before)
                let changes = try await server.homeserver.deviceLists.changes(since: from, for: reader)
                #expect(lists(changes.json.view) == lists(answer["device_lists"]), sourceLocation: sourceLocation)
                since[name] = to
            }
        }
        let name = alice.userID.string
        try await renew(alice, seed: 1, on: server)
        try await expect([name])
        try await renew(alice, seed: 1, on: server)
        try await expect([])
        try await server.homeserver.devices.rename(alice.deviceID, to: "Telephone", of: alice)
        try await expect([name])
        let master = SigningTestKey(seed: 2), selfSigning = SigningTestKey(seed: 3)
        _ = try await server.homeserver.crossSigning.upload(
            JSON.object([
                "master_key": master.crossSigningKey("master", of: name),
                "self_signing_key": master.sign(selfSigning.crossSigningKey("self_signing", of: name), as: name),
            ]).view, for: alice)
        try await expect([name])
        let device = SigningTestKey(seed: 1).deviceKeys(of: name, alice.deviceID)
        #expect(
            try await server.homeserver.crossSigning.sign(
                JSON.object([name: [alice.deviceID: selfSigning.sign(device, as: name)]]).view, for: alice
            ).isEmpty)
        try await expect([name])
        // Nobody sees a device without keys, so its end changes nothing.
        let bare = try await server.homeserver.accounts.logIn(
            user: "alice", password: "alice", deviceID: "BARE", displayName: nil)
        try await server.homeserver.accounts.logOut(
            try await server.homeserver.accounts.tokens.requester(for: bare.accessToken))
        try await expect([])
        try await server.homeserver.accounts.logOut(alice)
        try await expect([name])
        await server.close()
    }

    @Test("a signature on somebody else's key is told to the own devices alone")
    func ownSignature() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let master = SigningTestKey(seed: 2), userSigning = SigningTestKey(seed: 3), bobs = SigningTestKey(seed: 4)
        let name = alice.userID.string, other = bob.userID.string
        _ = try await server.homeserver.crossSigning.upload(
            JSON.object([
                "master_key": master.crossSigningKey("master", of: name),
                "user_signing_key": master.sign(userSigning.crossSigningKey("user_signing", of: name), as: name),
            ]).view, for: alice)
        let key = bobs.crossSigningKey("master", of: other)
        _ = try await server.homeserver.crossSigning.upload(JSON.object(["master_key": key]).view, for: bob)
        let mine = try token(try await server.sync(alice)), theirs = try token(try await server.sync(bob))
        _ = try await server.homeserver.crossSigning.sign(
            JSON.object([other: [bobs.publicKey: userSigning.sign(key, as: name)]]).view, for: alice)
        #expect(lists(try await server.sync(alice, since: mine)["device_lists"]) == Lists(changed: [other]))
        #expect(try await server.sync(bob, since: theirs)["device_lists"] == nil)
        await server.close()
    }

    @Test("a waiting sync hears of a change in a list of devices")
    func wakes() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let since = try token(try await server.sync(bob))
        let waiting = Task { lists(try await server.sync(bob, since: since, timeout: 30_000)["device_lists"]) }
        try await renew(alice, seed: 1, on: server)
        #expect(try await waiting.value == Lists(changed: [alice.userID.string]))
        await server.close()
    }

    @Test("who comes to share a room is changed, who shares none any more has left; another name in a room is neither")
    func sharing() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob"),
            carol = try await server.user("carol")
        let memberships = server.homeserver.memberships
        let first = try await server.room(of: alice), second = try await server.room(of: alice)
        try await memberships.join(first, reason: nil, by: carol)
        var since = try token(try await server.sync(bob)), alices = try token(try await server.sync(alice))
        func bobSees(_ changed: Set<String>, left: Set<String> = [], _ at: SourceLocation = #_sourceLocation)
            async throws
        {
            let answer = try await server.sync(bob, since: since)
            #expect(lists(answer["device_lists"]) == Lists(changed: changed, left: left), sourceLocation: at)
            since = try token(answer)
        }
        func aliceSees(_ changed: Set<String>, left: Set<String> = [], _ at: SourceLocation = #_sourceLocation)
            async throws
        {
            let answer = try await server.sync(alice, since: alices)
            #expect(lists(answer["device_lists"]) == Lists(changed: changed, left: left), sourceLocation: at)
            alices = try token(answer)
        }
        let (a, b, c) = (alice.userID.string, bob.userID.string, carol.userID.string)
        // An invitation isn't sharing, and one turned down isn't leaving.
        try await memberships.invite(bob.userID, to: first, reason: nil, by: alice)
        try await bobSees([])
        try await aliceSees([])
        try await memberships.leave(first, reason: nil, by: bob)
        try await bobSees([])
        try await aliceSees([])
        try await memberships.join(first, reason: nil, by: bob)
        try await bobSees([a, c])
        try await aliceSees([b])
        try await server.homeserver.profiles.set("displayname", to: "Bobby", for: bob)
        try await bobSees([])
        try await aliceSees([])
        try await memberships.join(second, reason: nil, by: bob)
        _ = try await server.sync(bob, since: since)
        since = try token(try await server.sync(bob, since: since))
        alices = try token(try await server.sync(alice, since: alices))
        // There is another room that bob and alice share, but none with carol.
        try await memberships.leave(first, reason: nil, by: bob)
        try await bobSees([], left: [c])
        try await aliceSees([])
        // Not told of what happens behind one's back, but of it when one comes to share again.
        try await renew(carol, seed: 9, on: server)
        try await bobSees([])
        try await memberships.join(second, reason: nil, by: carol)
        try await bobSees([c])
        try await memberships.remove(
            carol.userID, from: second, .kick, reason: nil, by: alice)
        try await bobSees([], left: [c])
        // Alice shares the first room with carol all the time.
        try await aliceSees([c])
        try await memberships.leave(second, reason: nil, by: bob)
        try await bobSees([], left: [a])
        try await aliceSees([], left: [b])
        await server.close()
    }

    @Test("who has left and come back between two syncs, with other devices, is changed")
    func between() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let since = try token(try await server.sync(alice))
        try await server.homeserver.memberships.leave(room, reason: nil, by: bob)
        try await renew(bob, seed: 1, on: server)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        #expect(
            lists(try await server.sync(alice, since: since)["device_lists"]) == Lists(changed: [bob.userID.string]))
        await server.close()
    }

    @Test(
        "whatever happens in whatever order, a client that follows its syncs knows all devices of those it shares rooms with"
    )
    func model() async throws {
        let server = try await TestServer()
        var generator = SeededGenerator(seed: 42)
        var users: [Requester] = []
        for name in ["a", "b", "c", "d"] { users.append(try await server.user(name)) }
        let memberships = server.homeserver.memberships
        var rooms: [RoomID] = []
        for user in users[..<3] { rooms.append(try await server.room(of: user)) }
        // Who is joined to which room, and the generation of each user's keys.
        var joined = rooms.enumerated().map { Set([$0.offset]) }
        var generation = [0, 0, 0, 0]
        // What the first user's client believes: the generation it fetched last, of those it tracks.
        var known: [Int: Int] = [:]
        var since = try token(try await server.sync(users[0]))
        let index = Dictionary(uniqueKeysWithValues: users.enumerated().map { ($0.element.userID.string, $0.offset) })
        for step in 0..<250 {
            let who = Int.random(in: 0..<4, using: &generator), place = Int.random(in: 0..<3, using: &generator)
            switch Int.random(in: 0..<5, using: &generator) {
            case 0, 1:
                if joined[place].insert(who).inserted {
                    try await memberships.join(rooms[place], reason: nil, by: users[who])
                }
            case 2:
                if joined[place].count > 1, joined[place].remove(who) != nil {
                    try await memberships.leave(rooms[place], reason: nil, by: users[who])
                }
            case 3:
                generation[who] += 1
                try await renew(users[who], seed: UInt64(who * 10_000 + generation[who]), on: server)
            default:
                let answer = try await server.sync(users[0], since: since)
                since = try token(answer)
                let told = lists(answer["device_lists"])
                let sharing = Set(joined.filter { $0.contains(0) }.joined()).union([0])
                for name in told.changed {
                    let user = try #require(index[name])
                    #expect(sharing.contains(user), "step \(step): \(name) shares no room")
                    known[user] = generation[user]
                }
                for name in told.left {
                    let user = try #require(index[name])
                    #expect(!sharing.contains(user), "step \(step): \(name) shares a room")
                    known[user] = nil
                }
                for user in sharing where user != 0 {
                    #expect(known[user] == generation[user], "step \(step): user \(user) has other devices")
                }
                #expect(Set(known.keys).subtracting([0]).isSubset(of: sharing), "step \(step): somebody left untold")
            }
        }
        await server.close()
    }
}
