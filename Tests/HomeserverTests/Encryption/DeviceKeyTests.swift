import Database
import MatrixCore
import RoostTestSupport
import Synchronization
import Testing

@testable import Homeserver

@Suite("Keys of devices", .onEachEngine)
struct DeviceKeyTests {
    private func upload(_ keys: JSON, _ server: TestServer, _ user: Requester) async throws -> [String: Int] {
        try await server.homeserver.deviceKeys.upload(keys.view, for: user)
    }

    private func named(_ names: Range<Int>, algorithm: String = "curve25519") -> JSON {
        .object(JSONObject(names.map { ("\(algorithm):K\($0)", .string("public \($0)")) }))
    }

    /// The key that is claimed of a device: its name and itself.
    private func claim(
        _ server: TestServer, _ user: Requester, algorithm: String = "curve25519"
    ) async throws -> (key: String, value: JSON)? {
        let asked: JSON = [user.userID.string: [user.deviceID: .string(algorithm)]]
        let answer = try await server.homeserver.deviceKeys.claim(asked.view)
        let parsed = try JSONDocument(parsing: answer.encoded()).root.json
        return parsed["one_time_keys"]?[user.userID.string]?[user.deviceID]?.objectValue?.first { _ in true }.map {
            (key: $0.key, value: $0.value)
        }
    }

    @Test("keys are as they were uploaded, with the device's name; others see them, and what isn't there isn't there")
    func query() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let keys = SigningTestKey(seed: 1).deviceKeys(of: "@alice:localhost", alice.deviceID)
        #expect(try await upload(["device_keys": keys], server, alice).isEmpty)
        try await server.homeserver.devices.rename(alice.deviceID, to: "Telephone", of: alice)
        func ask(_ devices: JSON) async throws -> JSON {
            let answer = try await server.homeserver.deviceKeys.query(devices.view, for: bob)
            return try JSONDocument(parsing: answer.encoded()).root.json
        }
        var expected = keys
        expected["unsigned"] = ["device_display_name": "Telephone"]
        for devices in [[], [.string(alice.deviceID)]] as [JSON] {
            let answer = try await ask(["@alice:localhost": devices])
            #expect(answer["device_keys"]?["@alice:localhost"]?[alice.deviceID] == expected)
        }
        #expect(try await ask(["@alice:localhost": ["OTHER"]])["device_keys"] == ["@alice:localhost": [:]])
        // A22: who has no keys and who doesn't exist look the same.
        #expect(
            try await ask(["@bob:localhost": [], "@nobody:localhost": []])["device_keys"]
                == ["@bob:localhost": [:], "@nobody:localhost": [:]])
        #expect(try await ask(["@far:away.example": []])["failures"]?["away.example"] != nil)
        await server.close()
    }

    @Test("keys of somebody else or another device, badly named or too large keys are refused, and nothing is kept")
    func refused() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let key = SigningTestKey(seed: 1)
        let own = key.deviceKeys(of: "@alice:localhost", alice.deviceID)
        var wrongName = own, notCanonical = own, large = own
        wrongName["keys"] = ["ed25519:OTHER": "x"]
        notCanonical["org.example.number"] = 1.5
        large["org.example.padding"] = .string(String(repeating: "x", count: 40_000))
        let bodies: [(JSON, MatrixError.Code)] = [
            (["device_keys": key.deviceKeys(of: "@bob:localhost", alice.deviceID)], .invalidParam),
            (["device_keys": key.deviceKeys(of: "@alice:localhost", "OTHER")], .invalidParam),
            (["device_keys": wrongName], .invalidParam), (["device_keys": notCanonical], .badJSON),
            (["device_keys": large], .tooLarge), (["device_keys": [:]], .missingParam),
            (["one_time_keys": ["noname": "x"]], .invalidParam), (["one_time_keys": [":x": "x"]], .invalidParam),
            (["one_time_keys": ["curve25519:": "x"]], .invalidParam), (["one_time_keys": ["a:b": 7]], .badJSON),
            (["one_time_keys": ["a:b": ["key": "x"]]], .missingParam),
            (["one_time_keys": ["a:b": .string(String(repeating: "x", count: 5_000))]], .tooLarge),
            (["one_time_keys": named(0..<1_001)], .invalidParam),
            (["fallback_keys": ["a:1": "x", "a:2": "y"]], .invalidParam),
        ]
        for (body, code) in bodies {
            do {
                _ = try await upload(body, server, alice)
                Issue.record("\(code) was expected")
            } catch let error as MatrixError { #expect(error.code == code, "\(error)") }
        }
        let counts = try await server.homeserver.sync.devices.keyCounts(of: alice)
        #expect(counts == DeviceKeyCounts())
        await server.close()
    }

    @Test("one-time keys are claimed in the order of their uploads, then the fallback key serves and shows as used")
    func order() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        #expect(try await upload(["one_time_keys": named(7..<9)], server, alice) == ["curve25519": 2])
        #expect(try await upload(["one_time_keys": named(0..<2)], server, alice) == ["curve25519": 4])
        _ = try await upload(["fallback_keys": ["curve25519:F": "fallback"]], server, alice)
        #expect(try await server.homeserver.sync.devices.keyCounts(of: alice).unusedFallback == ["curve25519"])
        var claimed: [String] = []
        for _ in 0..<4 { claimed.append(try #require(try await claim(server, alice)).key) }
        #expect(Set(claimed[..<2]) == ["curve25519:K7", "curve25519:K8"])
        #expect(Set(claimed[2...]) == ["curve25519:K0", "curve25519:K1"])
        #expect(try await server.homeserver.sync.devices.keyCounts(of: alice).unusedFallback == ["curve25519"])
        for _ in 0..<2 {
            let fallback = try #require(try await claim(server, alice))
            #expect(fallback.key == "curve25519:F" && fallback.value == "fallback")
        }
        #expect(try await server.homeserver.sync.devices.keyCounts(of: alice) == DeviceKeyCounts())
        #expect(try await claim(server, alice, algorithm: "signed_curve25519") == nil)
        // The same again, as a client that has not got the answer sends it, is still used; another one is not.
        _ = try await upload(["fallback_keys": ["curve25519:F": "fallback"]], server, alice)
        #expect(try await server.homeserver.sync.devices.keyCounts(of: alice).unusedFallback == [])
        _ = try await upload(["fallback_keys": ["curve25519:G": "another"]], server, alice)
        #expect(try await server.homeserver.sync.devices.keyCounts(of: alice).unusedFallback == ["curve25519"])
        #expect(try #require(try await claim(server, alice)).key == "curve25519:G")
        await server.close()
    }

    @Test("A31: an upload repeated after a key was claimed doesn't bring it back; another key of its name is refused")
    func repeated() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        _ = try await upload(["one_time_keys": named(0..<2)], server, alice)
        let first = try #require(try await claim(server, alice))
        #expect(try await upload(["one_time_keys": named(0..<2)], server, alice) == ["curve25519": 1])
        // Nor under another name.
        #expect(
            try await upload(["one_time_keys": ["curve25519:NEW": first.value]], server, alice) == ["curve25519": 1])
        let second = try #require(try await claim(server, alice))
        #expect(first.key != second.key)
        #expect(try await claim(server, alice) == nil)
        _ = try await upload(["one_time_keys": ["curve25519:X": "one"]], server, alice)
        await #expect(throws: MatrixError.self) {
            try await upload(["one_time_keys": ["curve25519:X": "two"]], server, alice)
        }
        await server.close()
    }

    @Test("keys of all lengths in one upload are claimed, each as it was uploaded")
    func lengths() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        var keys: [String: JSON] = [
            "curve25519:é": "ü", "curve25519:\u{0}": "\u{0}", "other:A": "of another algorithm",
        ]
        for number in [0, 5, 50, 500, 3, 30, 7] {
            keys["curve25519:\(number)"] = .string(String(repeating: "x", count: 1 + number % 8) + "\(number)")
            keys["curve25519:S\(number)"] = ["key": .string("signed \(number)"), "signatures": [:]]
        }
        let uploaded = JSON.object(JSONObject(keys.map { ($0.key, $0.value) }))
        #expect(try await upload(["one_time_keys": uploaded], server, alice) == ["curve25519": 16, "other": 1])
        #expect(try await upload(["one_time_keys": uploaded], server, alice) == ["curve25519": 16, "other": 1])
        #expect(
            try await server.homeserver.sync.devices.keyCounts(of: alice).oneTime == ["curve25519": 16, "other": 1])
        var claimed: [String: JSON] = [:]
        for algorithm in ["curve25519", "other"] {
            while let key = try await claim(server, alice, algorithm: algorithm) { claimed[key.key] = key.value }
        }
        #expect(claimed == keys)
        await server.close()
    }

    @Test("A17: algorithms that are equal as text but not as bytes bring nobody down, and each has its keys")
    func spellings() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let composed = "\u{e9}"
        let decomposed = "e\u{301}"
        let keys = JSON.object(
            JSONObject([("\(composed):1", .string("composed")), ("\(decomposed):1", .string("decomposed"))]))
        #expect(try await upload(["one_time_keys": keys], server, alice).values.reduce(0, +) == 2)
        #expect(try await server.homeserver.sync.devices.keyCounts(of: alice).oneTime.values.reduce(0, +) == 2)
        #expect(try await server.sync(alice)["device_one_time_keys_count"]?.isObject == true)
        #expect(try await claim(server, alice, algorithm: decomposed)?.value == "decomposed")
        #expect(try await claim(server, alice, algorithm: decomposed) == nil)
        #expect(try await claim(server, alice, algorithm: composed)?.value == "composed")
        await server.close()
    }

    @Test(
        "one request claims of many devices: each time another key of each, then the fallback key of those that have one"
    )
    func manyDevices() async throws {
        let server = try await TestServer()
        var users: [Requester] = []
        for number in 0..<7 {
            let user = try await server.user("user\(number)")
            _ = try await upload(["one_time_keys": named(number * 10..<number * 10 + number)], server, user)
            if number.isMultiple(of: 2) {
                _ = try await upload(["fallback_keys": ["curve25519:F\(number)": "fallback"]], server, user)
            }
            users.append(user)
        }
        let asked = JSON.object(
            JSONObject(users.map { ($0.userID.string, [$0.deviceID: "curve25519"]) } + [("@nobody:localhost", [:])]))
        var claimed: Set<String> = []
        for round in 0..<8 {
            let answer = try await server.homeserver.deviceKeys.claim(asked.view)
            let keys = try JSONDocument(parsing: answer.encoded()).root.json["one_time_keys"]
            for (number, user) in users.enumerated() {
                let key = keys?[user.userID.string]?[user.deviceID]?.objectValue?.first { _ in true }
                if round < number {
                    let name = try #require(key?.key)
                    #expect(claimed.insert(name).inserted && name.hasPrefix("curve25519:K"))
                    #expect(key?.value.stringValue == "public \(name.dropFirst("curve25519:K".count))")
                } else {
                    #expect(key?.key == (number.isMultiple(of: 2) ? "curve25519:F\(number)" : nil))
                }
            }
        }
        #expect(claimed.count == 21)
        await server.close()
    }

    @Test("A31: a thousand keys that were handed out stay known over many uploads, and take one row")
    func remembered() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        var claimed: [String] = []
        func claimAll() async throws { while let key = try await claim(server, alice) { claimed.append(key.key) } }
        // Some at a time, in uploads that overlap.
        for start in stride(from: 0, to: 40, by: 4) {
            let counts = try await upload(["one_time_keys": named(max(start - 6, 0)..<start + 4)], server, alice)
            #expect(counts == ["curve25519": 4])
            try await claimAll()
        }
        #expect(claimed.count == 40)
        _ = try await upload(["one_time_keys": named(40..<41)], server, alice)
        try await claimAll()
        #expect(try await upload(["one_time_keys": named(0..<41)], server, alice).isEmpty)
        let database = server.homeserver.database
        let pool = try await database.read { try await database.oneTimeKeys(of: alice.nid, alice.deviceID, $0) }
        #expect(pool.rowCount == 2)
        // The oldest are forgotten when there are more.
        _ = try await upload(["one_time_keys": named(100..<1_100)], server, alice)
        for _ in 0..<1_000 { _ = try await claim(server, alice) }
        #expect(try await upload(["one_time_keys": named(2_000..<2_001)], server, alice) == ["curve25519": 1])
        #expect(try await upload(["one_time_keys": named(100..<1_100)], server, alice) == ["curve25519": 1])
        #expect(try await upload(["one_time_keys": named(0..<4)], server, alice) == ["curve25519": 5])
        await server.close()
    }

    @Test("A31: one upload that arrives several times at once counts once")
    func together() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        for round in 0..<10 {
            let keys = named(round * 5..<round * 5 + 5)
            let counts = try await withThrowingTaskGroup(of: [String: Int].self) { group in
                for _ in 0..<4 { group.addTask { try await upload(["one_time_keys": keys], server, alice) } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(counts == [[String: Int]](repeating: ["curve25519": 5], count: 4))
            var claimed: Set<String> = []
            while let key = try await claim(server, alice) { #expect(claimed.insert(key.key).inserted) }
            #expect(claimed.count == 5)
        }
        await server.close()
    }

    @Test("A31: many who claim at once, while the device uploads, get each key once")
    func concurrently() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        _ = try await upload(["one_time_keys": named(0..<100)], server, alice)
        let claimed = try await withThrowingTaskGroup(of: [String].self) { group in
            for _ in 0..<12 {
                group.addTask {
                    var own: [String] = []
                    for _ in 0..<15 { if let key = try await claim(server, alice) { own.append(key.key) } }
                    return own
                }
            }
            group.addTask {
                for start in stride(from: 100, to: 140, by: 10) {
                    _ = try await upload(["one_time_keys": named(start - 5..<start + 10)], server, alice)
                }
                return []
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        var rest: [String] = []
        while let key = try await claim(server, alice) { rest.append(key.key) }
        #expect(Set(claimed + rest).count == 140)
        #expect(claimed.count + rest.count == 140)
        await server.close()
    }

    @Test("A31: several nodes of one database that are asked at once hand each key out once")
    func nodes() async throws {
        let directory = TemporaryDirectory()
        let first = try await TestServer(directory: directory)
        // A file belongs to one server; a PostgreSQL database to as many as there are.
        let isShared = EngineKind.current == .postgresql
        let second = isShared ? try await TestServer(directory: directory, clock: ManualSurroundings(seed: 2)) : first
        let alice = try await first.user("alice")
        _ = try await upload(["one_time_keys": named(0..<60), "fallback_keys": ["curve25519:F": "x"]], first, alice)
        let claimed = try await withThrowingTaskGroup(of: [String].self) { group in
            for server in [first, second, first, second] {
                group.addTask {
                    var own: [String] = []
                    for _ in 0..<15 { own.append(try #require(try await claim(server, alice)).key) }
                    return own
                }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        #expect(Set(claimed).count == 60 && !claimed.contains("curve25519:F"))
        for server in [first, second] {
            #expect(try await server.homeserver.sync.devices.keyCounts(of: alice).oneTime.isEmpty)
            #expect(try #require(try await claim(server, alice)).key == "curve25519:F")
        }
        if isShared { await second.close() }
        await first.close()
    }

    @Test("A31: a key that was claimed stays claimed when the server starts again, killed or not")
    func reopened() async throws {
        let directory = TemporaryDirectory()
        let server = try await TestServer(directory: directory)
        let alice = try await server.user("alice")
        _ = try await upload(["one_time_keys": named(0..<6)], server, alice)
        var claimed: [String] = []
        for _ in 0..<3 { claimed.append(try #require(try await claim(server, alice)).key) }
        // A second server upon the same data, while the first has not ended, is what a crash leaves.
        let again = try await TestServer(directory: directory, clock: ManualSurroundings(seed: 2))
        #expect(try await upload(["one_time_keys": named(0..<6)], again, alice) == ["curve25519": 3])
        while let key = try await claim(again, alice) { claimed.append(key.key) }
        #expect(claimed.count == 6 && Set(claimed).count == 6)
        await again.close()
        await server.close()
    }

    @Test("a device that ends takes its keys with it; the backup of room keys stays")
    func deletion() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let keys = SigningTestKey(seed: 1).deviceKeys(of: "@alice:localhost", alice.deviceID)
        _ = try await upload(
            ["device_keys": keys, "one_time_keys": named(0..<2), "fallback_keys": ["a:F": "x"]], server, alice)
        _ = try await server.homeserver.keyBackups.create(
            algorithm: "m.example", authData: JSON.object([:]).view, for: alice)
        try await server.homeserver.accounts.logOut(alice)
        #expect(try await claim(server, alice) == nil)
        #expect(try await claim(server, alice, algorithm: "a") == nil)
        let answer = try await server.homeserver.deviceKeys.query(
            JSON.object(["@alice:localhost": []]).view, for: alice)
        #expect(answer["device_keys"]?["@alice:localhost"] == [:])
        #expect(try await server.homeserver.keyBackups.info(nil, for: alice)["version"] == "1")
        // Whoever has no device any more adds no keys.
        await #expect(throws: MatrixError.self) { try await upload(["device_keys": keys], server, alice) }
        await #expect(throws: MatrixError.self) { try await upload(["one_time_keys": named(3..<4)], server, alice) }
        await server.close()
    }

    @Test("the end of an account ends all its keys and backups")
    func deactivation() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let key = SigningTestKey(seed: 1), master = SigningTestKey(seed: 2)
        _ = try await upload(
            ["device_keys": key.deviceKeys(of: "@alice:localhost", alice.deviceID), "one_time_keys": named(0..<2)],
            server, alice)
        _ = try await server.homeserver.crossSigning.upload(
            JSON.object(["master_key": master.crossSigningKey("master", of: "@alice:localhost")]).view, for: alice)
        _ = try await server.homeserver.keyBackups.create(
            algorithm: "m.example", authData: JSON.object([:]).view, for: alice)
        _ = try await server.homeserver.deactivation.deactivate("alice")
        let answer = try await server.homeserver.deviceKeys.query(
            JSON.object(["@alice:localhost": []]).view, for: bob)
        #expect(answer["device_keys"]?["@alice:localhost"] == [:] && answer["master_keys"] == [:])
        #expect(try await claim(server, alice) == nil)
        await #expect(throws: MatrixError.self) { try await server.homeserver.keyBackups.info(nil, for: alice) }
        await server.close()
    }

    @Test("A31: a restored server has none of the one-time keys that were unclaimed when it was backed up")
    func restored() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let room = try await server.room(of: alice)
        try await server.homeserver.memberships.join(room, reason: nil, by: bob)
        let since = try #require(try await server.sync(bob)["next_batch"]?.string)
        _ = try await upload(
            ["one_time_keys": named(0..<3), "fallback_keys": ["curve25519:F": "fallback"]], server, alice)
        let target = TemporaryDirectory(), place = TemporaryDirectory()
        _ = try await server.homeserver.maintenance.backUp(to: "\(target.path)/backup")
        // After the backup: the restored server doesn't know of it.
        _ = try #require(try await claim(server, alice))
        await server.close()
        var location = Configuration.DatabaseLocation.sqlite(path: "\(place.path)/roost.db")
        if EngineKind.current == .postgresql { location = .postgresql(url: try await EngineKind.url(of: place)) }
        _ = try await Backup.restore(
            from: "\(target.path)/backup", serverName: ServerName("localhost")!, to: location,
            mediaPath: "\(place.path)/media", scratch: place.path,
            surroundings: ManualSurroundings(seed: 77).surroundings, logger: .init(label: "t"))
        let again = try await TestServer(directory: place, clock: ManualSurroundings(seed: 5))
        #expect(try await again.homeserver.sync.devices.keyCounts(of: alice) == DeviceKeyCounts())
        #expect(try #require(try await claim(again, alice)).key == "curve25519:F")
        // Whoever comes with a token from before asks for everybody's devices again: what they knew may not be so any more.
        let lists = try await again.sync(bob, since: since)["device_lists"]
        #expect(lists?["changed"]?.elements.compactMap(\.string) == [alice.userID.string])
        #expect(try await again.sync(bob)["device_lists"] == nil)
        await again.close()
    }
}
