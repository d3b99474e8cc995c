import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Cross-signing", .onEachEngine)
struct CrossSigningTests {
    /// A user's keys.
    private struct Person {
        let requester: Requester
        let device: SigningTestKey
        let master: SigningTestKey
        let selfSigning: SigningTestKey
        let userSigning: SigningTestKey
        var name: String { requester.userID.string }

        init(_ requester: Requester, seed: UInt64) {
            self.requester = requester
            device = SigningTestKey(seed: seed)
            master = SigningTestKey(seed: seed + 1)
            selfSigning = SigningTestKey(seed: seed + 2)
            userSigning = SigningTestKey(seed: seed + 3)
        }

        var masterKey: JSON { master.crossSigningKey("master", of: name) }
        var deviceKeys: JSON { device.deviceKeys(of: name, requester.deviceID) }
        var keys: JSON {
            [
                "master_key": masterKey,
                "self_signing_key": master.sign(selfSigning.crossSigningKey("self_signing", of: name), as: name),
                "user_signing_key": master.sign(userSigning.crossSigningKey("user_signing", of: name), as: name),
            ]
        }
    }

    private func person(_ name: String, seed: UInt64, on server: TestServer) async throws -> Person {
        let person = Person(try await server.user(name), seed: seed)
        _ = try await server.homeserver.deviceKeys.upload(
            JSON.object(["device_keys": person.deviceKeys]).view, for: person.requester)
        return person
    }

    private func publish(_ keys: JSON, _ person: Person, _ server: TestServer) async throws -> Bool {
        let outcome = try await server.homeserver.crossSigning.upload(keys.view, for: person.requester)
        if case .done = outcome { return true }
        return false
    }

    private func query(_ user: String, by person: Person, _ server: TestServer) async throws -> JSON {
        let answer = try await server.homeserver.deviceKeys.query(JSON.object([user: []]).view, for: person.requester)
        return try JSONDocument(parsing: answer.encoded()).root.json
    }

    private func sign(_ body: JSON, _ person: Person, _ server: TestServer) async throws -> JSONObject {
        try await server.homeserver.crossSigning.sign(body.view, for: person.requester)
    }

    @Test("first keys and the same keys need no password, others do; a password is good for these keys only")
    func authentication() async throws {
        let server = try await TestServer()
        let alice = try await person("alice", seed: 10, on: server)
        let other = Person(alice.requester, seed: 50)
        #expect(try await publish(alice.keys, alice, server))
        #expect(try await publish(alice.keys, alice, server))
        #expect(try await publish(["master_key": alice.masterKey], alice, server))
        let outcome = try await server.homeserver.crossSigning.upload(other.keys.view, for: alice.requester)
        guard case .challenge(let challenge) = outcome else {
            Issue.record("other keys need a password")
            return
        }
        #expect(
            try await query(alice.name, by: alice, server)["master_keys"]?[alice.name]?["keys"]
                == alice.masterKey["keys"])
        let auth: JSON = [
            "type": "m.login.password", "password": "alice", "session": challenge["session"] ?? .null,
            "identifier": ["type": "m.id.user", "user": "alice"],
        ]
        var third = Person(alice.requester, seed: 90).keys
        third["auth"] = auth
        await #expect(throws: MatrixError.self) { try await publish(third, alice, server) }
        var keys = other.keys
        keys["auth"] = auth
        #expect(try await publish(keys, alice, server))
        let answer = try await query(alice.name, by: alice, server)
        #expect(answer["master_keys"]?[alice.name]?["keys"] == other.masterKey["keys"])
        #expect(answer["user_signing_keys"]?[alice.name]?["keys"]?["ed25519:\(other.userSigning.publicKey)"] != nil)
        await server.close()
    }

    @Test("a new master key ends the keys and signatures that hung on the old one")
    func newMaster() async throws {
        let server = try await TestServer()
        let alice = try await person("alice", seed: 10, on: server)
        #expect(try await publish(alice.keys, alice, server))
        let device = alice.selfSigning.sign(alice.deviceKeys, as: alice.name)
        #expect(try await sign([alice.name: [alice.requester.deviceID: device]], alice, server).isEmpty)
        var keys: JSON = ["master_key": Person(alice.requester, seed: 50).masterKey]
        keys["auth"] = [
            "type": "m.login.password", "password": "alice", "identifier": ["type": "m.id.user", "user": "alice"],
        ]
        #expect(try await publish(keys, alice, server))
        let answer = try await query(alice.name, by: alice, server)
        #expect(answer["self_signing_keys"] == [:] && answer["user_signing_keys"] == [:])
        #expect(
            answer["device_keys"]?[alice.name]?[alice.requester.deviceID]?["signatures"]
                == alice.deviceKeys["signatures"])
        await server.close()
    }

    @Test("keys that don't hang together, or are named as a device, are refused")
    func refused() async throws {
        let server = try await TestServer()
        let alice = try await person("alice", seed: 10, on: server)
        let stranger = SigningTestKey(seed: 99)
        let selfSigning = alice.selfSigning.crossSigningKey("self_signing", of: alice.name)
        var twoKeys = alice.masterKey, wrongValue = alice.masterKey
        twoKeys["keys"] = ["ed25519:a": "a", "ed25519:b": "b"]
        wrongValue["keys"] = ["ed25519:\(alice.master.publicKey)": .string(stranger.publicKey)]
        let cases: [(JSON, MatrixError.Code)] = [
            ([:], .missingParam),
            (["self_signing_key": alice.master.sign(selfSigning, as: alice.name)], .missingParam),
            (["master_key": alice.masterKey, "self_signing_key": selfSigning], .invalidSignature),
            (
                ["master_key": alice.masterKey, "self_signing_key": stranger.sign(selfSigning, as: alice.name)],
                .invalidSignature
            ),
            // Signed under the master key's name, but not by it.
            (
                [
                    "master_key": alice.masterKey,
                    "self_signing_key": stranger.sign(selfSigning, as: alice.name, keyID: alice.master.publicKey),
                ], .invalidSignature
            ),
            // A signature of the device that isn't one.
            (
                ["master_key": stranger.sign(alice.masterKey, as: alice.name, keyID: alice.requester.deviceID)],
                .invalidSignature
            ),
            (["master_key": alice.master.crossSigningKey("master", of: "@bob:localhost")], .invalidParam),
            (["master_key": alice.master.crossSigningKey("self_signing", of: alice.name)], .invalidParam),
            (["master_key": twoKeys], .invalidParam), (["master_key": wrongValue], .invalidParam),
            (
                [
                    "master_key": alice.masterKey,
                    "self_signing_key": alice.master.sign(
                        alice.master.crossSigningKey("self_signing", of: alice.name), as: alice.name),
                ], .invalidParam
            ),
        ]
        for (body, code) in cases {
            do {
                _ = try await publish(body, alice, server)
                Issue.record("\(code) was expected for \(body)")
            } catch let error as MatrixError { #expect(error.code == code, "\(error)") }
        }
        // Devices and cross-signing keys share their names.
        let key = SigningTestKey(seed: 3)
        _ = try await server.homeserver.accounts.logIn(
            user: "alice", password: "alice", deviceID: key.publicKey, displayName: nil)
        do {
            _ = try await publish(["master_key": key.crossSigningKey("master", of: alice.name)], alice, server)
            Issue.record("a key named as a device was taken")
        } catch let error as MatrixError { #expect(error.code == .forbidden) }
        #expect(try await publish(alice.keys, alice, server))
        await #expect(throws: MatrixError.self) {
            try await server.homeserver.accounts.logIn(
                user: "alice", password: "alice", deviceID: alice.selfSigning.publicKey, displayName: nil)
        }
        await server.close()
    }

    @Test("signatures are verified one by one, and shown to those who may see them")
    func signatures() async throws {
        let server = try await TestServer()
        let alice = try await person("alice", seed: 10, on: server)
        let bob = try await person("bob", seed: 20, on: server)
        let carol = try await person("carol", seed: 30, on: server)
        for person in [alice, bob, carol] { #expect(try await publish(person.keys, person, server)) }
        let device = alice.requester.deviceID
        // One's own device by the self-signing key, one's own master key by the device, somebody else's by the user-signing key.
        let signedDevice = alice.selfSigning.sign(alice.deviceKeys, as: alice.name)
        let signedMaster = alice.device.sign(alice.masterKey, as: alice.name, keyID: device)
        let signedBob = alice.userSigning.sign(bob.masterKey, as: alice.name)
        let failures = try await sign(
            [
                alice.name: [device: signedDevice, alice.master.publicKey: signedMaster],
                bob.name: [bob.master.publicKey: signedBob],
            ], alice, server)
        #expect(failures.isEmpty, "\(failures)")

        for reader in [alice, bob, carol] {
            let answer = try await query(alice.name, by: reader, server)
            #expect(answer["device_keys"]?[alice.name]?[device]?["signatures"] == signedDevice["signatures"])
            #expect(answer["master_keys"]?[alice.name]?["signatures"] == signedMaster["signatures"])
            #expect(answer["self_signing_keys"]?[alice.name] == alice.keys["self_signing_key"])
            #expect((answer["user_signing_keys"]?[alice.name] != nil) == (reader.name == alice.name))
            let bobs = try await query(bob.name, by: reader, server)["master_keys"]?[bob.name]?["signatures"]
            #expect(bobs == (reader.name == alice.name ? signedBob["signatures"] : nil), "\(reader.name)")
        }

        // What is wrong is told by key, and what is right beside it counts.
        var altered = signedDevice
        altered["algorithms"] = []
        let bad: [(user: String, key: String, object: JSON, code: String)] = [
            (alice.name, device, altered, "M_INVALID_PARAM"),
            (alice.name, device, alice.userSigning.sign(alice.deviceKeys, as: alice.name), "M_INVALID_SIGNATURE"),
            (
                alice.name, device,
                bob.selfSigning.sign(alice.deviceKeys, as: alice.name, keyID: alice.selfSigning.publicKey),
                "M_INVALID_SIGNATURE"
            ),
            (alice.name, device, alice.deviceKeys, "M_INVALID_SIGNATURE"),
            (alice.name, "NONE", signedDevice, "M_NOT_FOUND"),
            (bob.name, bob.requester.deviceID, alice.userSigning.sign(bob.deviceKeys, as: alice.name), "M_NOT_FOUND"),
            (bob.name, bob.master.publicKey, alice.master.sign(bob.masterKey, as: alice.name), "M_INVALID_SIGNATURE"),
            // In somebody else's name.
            (
                bob.name, bob.master.publicKey, carol.userSigning.sign(bob.masterKey, as: carol.name),
                "M_INVALID_SIGNATURE"
            ),
            ("@nobody:localhost", "X", [:], "M_NOT_FOUND"),
        ]
        for one in bad {
            let failures = try await sign(
                [
                    one.user: [one.key: one.object],
                    carol.name: [carol.master.publicKey: alice.userSigning.sign(carol.masterKey, as: alice.name)],
                ],
                alice, server)
            #expect(failures[one.user]?[one.key]?["errcode"]?.stringValue == one.code, "\(one)")
            #expect(failures[carol.name] == nil)
        }
        let carols = try await query(carol.name, by: alice, server)
        #expect(carols["master_keys"]?[carol.name]?["signatures"]?[alice.name]?.objectValue?.count == 1)
        await server.close()
    }

    @Test("signatures go with the keys they were made by or on")
    func ends() async throws {
        let server = try await TestServer()
        let alice = try await person("alice", seed: 10, on: server)
        let bob = try await person("bob", seed: 20, on: server)
        for person in [alice, bob] { #expect(try await publish(person.keys, person, server)) }
        let device = alice.requester.deviceID
        let signedDevice = alice.selfSigning.sign(alice.deviceKeys, as: alice.name)
        let signedMaster = alice.device.sign(alice.masterKey, as: alice.name, keyID: device)
        #expect(
            try await sign(
                [alice.name: [device: signedDevice, alice.master.publicKey: signedMaster]], alice, server
            ).isEmpty)
        // Other identity keys of the device: the signature was on the old ones.
        let renewed = SigningTestKey(seed: 77).deviceKeys(of: alice.name, device)
        _ = try await server.homeserver.deviceKeys.upload(
            JSON.object(["device_keys": renewed]).view, for: alice.requester)
        var answer = try await query(alice.name, by: bob, server)
        #expect(answer["device_keys"]?[alice.name]?[device]?["signatures"] == renewed["signatures"])
        #expect(answer["master_keys"]?[alice.name]?["signatures"] != nil)
        try await server.homeserver.accounts.logOut(alice.requester)
        answer = try await query(alice.name, by: bob, server)
        #expect(answer["master_keys"]?[alice.name]?["signatures"] == nil)
        await server.close()
    }
}
