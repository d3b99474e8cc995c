import MatrixCore
import NIOHTTP1
import RoostTestSupport
import Testing

@testable import Homeserver
@testable import HomeserverHTTP

@Suite("Client-Server API: end-to-end encryption")
struct EncryptionTests {
    private let base = "/_matrix/client/v3"

    private func device(_ token: String, _ client: ClientSession) async -> String {
        await client.ask(.GET, "\(base)/account/whoami", token).json["device_id"]?.stringValue ?? ""
    }

    @Test("keys are uploaded, asked for, claimed and counted")
    func keys() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice"), bob = await client.register("bob")
        let user = "@alice:localhost", deviceID = await device(alice, client)
        let key = SigningTestKey(seed: 1)
        let oneTime = key.oneTimeKey("one", of: user, deviceID)
        let fallback = key.oneTimeKey("fallback", of: user, deviceID, fallback: true)
        let upload = await client.ask(
            .POST, "\(base)/keys/upload", alice,
            [
                "device_keys": key.deviceKeys(of: user, deviceID),
                "one_time_keys": ["signed_curve25519:AAAAAQ": oneTime],
                "fallback_keys": ["signed_curve25519:AAAAFB": fallback],
            ])
        #expect(upload.json == ["one_time_key_counts": ["signed_curve25519": 1]])
        #expect(await client.ask(.POST, "\(base)/keys/upload", alice, [:]).json == upload.json)
        let asked: JSON = ["device_keys": [user: []], "timeout": 1_000]
        let query = await client.ask(.POST, "\(base)/keys/query", bob, asked).json
        #expect(query["device_keys"]?[user]?[deviceID]?["keys"]?["ed25519:\(deviceID)"] == .string(key.publicKey))
        for (name, expected) in [("AAAAAQ", oneTime), ("AAAAFB", fallback), ("AAAAFB", fallback)] {
            let claim = await client.ask(
                .POST, "\(base)/keys/claim", bob,
                ["one_time_keys": [user: [deviceID: "signed_curve25519"], "@nobody:localhost": ["X": "a"]]])
            #expect(
                claim.json == [
                    "one_time_keys": [user: [deviceID: ["signed_curve25519:\(name)": expected]]], "failures": [:],
                ])
        }
        let far = await client.ask(
            .POST, "\(base)/keys/claim", bob, ["one_time_keys": ["@a:far.example": ["X": "a"]]]
        ).json
        #expect(far["failures"]?["far.example"] != nil && far["one_time_keys"] == [:])
        let sync = await client.ask(.GET, "\(base)/sync", alice).json
        #expect(sync["device_unused_fallback_key_types"] == [])
        #expect(
            await client.ask(.POST, "\(base)/keys/query", bob, ["device_keys": ["x": []]]).code == "M_INVALID_PARAM")
        await client.server.close()
    }

    @Test("changes of device lists come by sync and can be asked for between two tokens")
    func deviceLists() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice"), bob = await client.register("bob")
        let room = await client.ask(.POST, "\(base)/createRoom", alice, ["preset": "public_chat"]).json["room_id"]
        _ = await client.ask(.POST, "\(base)/join/\(room?.stringValue ?? "")", bob, [:])
        let from = await client.ask(.GET, "\(base)/sync", bob).json["next_batch"]?.stringValue ?? ""
        let keys = SigningTestKey(seed: 1).deviceKeys(of: "@alice:localhost", await device(alice, client))
        _ = await client.ask(.POST, "\(base)/keys/upload", alice, ["device_keys": keys])
        let lists: JSON = ["changed": ["@alice:localhost"], "left": []]
        let sync = await client.ask(.GET, "\(base)/sync?since=\(from)", bob).json
        #expect(sync["device_lists"] == lists)
        let to = sync["next_batch"]?.stringValue ?? ""
        #expect(await client.ask(.GET, "\(base)/keys/changes?from=\(from)&to=\(to)", bob).json == lists)
        #expect(
            await client.ask(.GET, "\(base)/keys/changes?from=\(to)&to=\(to)", bob).json == ["changed": [], "left": []])
        for query in ["from=\(from)", "to=\(to)", "from=x&to=\(to)", "from=\(from)&to=x"] {
            #expect(await client.ask(.GET, "\(base)/keys/changes?\(query)", bob).status == 400)
        }
        await client.server.close()
    }

    @Test("cross-signing keys are published, replaced with the password, and sign")
    func crossSigning() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice")
        let user = "@alice:localhost", deviceID = await device(alice, client)
        let key = SigningTestKey(seed: 1), master = SigningTestKey(seed: 2), selfSigning = SigningTestKey(seed: 3)
        let deviceKeys = key.deviceKeys(of: user, deviceID)
        _ = await client.ask(.POST, "\(base)/keys/upload", alice, ["device_keys": deviceKeys])
        func keys(_ master: SigningTestKey) -> JSON {
            [
                "master_key": master.crossSigningKey("master", of: user),
                "self_signing_key": master.sign(selfSigning.crossSigningKey("self_signing", of: user), as: user),
            ]
        }
        let path = "\(base)/keys/device_signing/upload"
        #expect(await client.ask(.POST, path, alice, [:]).code == "M_MISSING_PARAM")
        #expect(await client.ask(.POST, path, alice, keys(master)).json == [:])
        var other = keys(SigningTestKey(seed: 4))
        let challenge = await client.ask(.POST, path, alice, other)
        #expect(challenge.status == 401 && challenge.json["flows"] == [["stages": ["m.login.password"]]])
        other["auth"] = [
            "type": "m.login.password", "session": challenge.json["session"] ?? .null, "password": "secret",
            "identifier": ["type": "m.id.user", "user": "alice"],
        ]
        #expect(await client.ask(.POST, path, alice, other).json == [:])
        let signed = selfSigning.sign(deviceKeys, as: user)
        let answer = await client.ask(
            .POST, "\(base)/keys/signatures/upload", alice, [user: [deviceID: signed, "OTHER": signed]])
        #expect(answer.json["failures"]?[user]?[deviceID] == nil)
        #expect(answer.json["failures"]?[user]?["OTHER"]?["errcode"] == "M_NOT_FOUND")
        let query = await client.ask(.POST, "\(base)/keys/query", alice, ["device_keys": [user: []]]).json
        #expect(query["device_keys"]?[user]?[deviceID]?["signatures"] == signed["signatures"])
        #expect(query["self_signing_keys"]?[user] == other["self_signing_key"])
        await client.server.close()
    }

    @Test("messages to devices arrive with the next sync")
    func toDevice() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice"), bob = await client.register("bob")
        let content: JSON = ["algorithm": "m.olm.v1.curve25519-aes-sha2", "sender_key": "x"]
        for _ in 0..<2 {
            let sent = await client.ask(
                .PUT, "\(base)/sendToDevice/m.room.encrypted/1", alice, ["messages": ["@bob:localhost": ["*": content]]]
            )
            #expect(sent.json == [:])
        }
        let sync = await client.ask(.GET, "\(base)/sync", bob).json
        #expect(
            sync["to_device"] == [
                "events": [["type": "m.room.encrypted", "sender": "@alice:localhost", "content": content]]
            ])
        #expect(await client.ask(.PUT, "\(base)/sendToDevice/x/2", alice, [:]).code == "M_MISSING_PARAM")
        await client.server.close()
    }

    @Test("room keys are backed up, read and deleted")
    func backup() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice")
        let keys = "\(base)/room_keys"
        #expect(await client.ask(.GET, "\(keys)/version", alice).code == "M_NOT_FOUND")
        let made = await client.ask(
            .POST, "\(keys)/version", alice,
            ["algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": ["public_key": "x"]])
        #expect(made.json == ["version": "1"])
        let session: JSON = [
            "first_message_index": 1, "forwarded_count": 0, "is_verified": true, "session_data": ["ciphertext": "x"],
        ]
        let room = "%21a%3Alocalhost"
        for (path, body, count) in [
            ("keys/\(room)/one", session, 1), ("keys/\(room)", ["sessions": ["two/2": session]], 2),
            ("keys", ["rooms": ["!b:localhost": ["sessions": ["three": session]]]], 3),
        ] as [(String, JSON, Int64)] {
            let put = await client.ask(.PUT, "\(keys)/\(path)?version=1", alice, body)
            #expect(put.json["count"] == .integer(count) && put.json["etag"] == .string("\(count)"))
            let wrong = await client.ask(.PUT, "\(keys)/\(path)?version=2", alice, body)
            #expect(wrong.status == 404)
            #expect(await client.ask(.PUT, "\(keys)/\(path)", alice, body).code == "M_MISSING_PARAM")
        }
        #expect(await client.ask(.GET, "\(keys)/keys/\(room)/two%2F2?version=1", alice).json == session)
        #expect(
            await client.ask(.GET, "\(keys)/keys/\(room)?version=1", alice).json == [
                "sessions": ["one": session, "two/2": session]
            ])
        #expect(await client.ask(.GET, "\(keys)/keys?version=1", alice).json["rooms"]?.objectValue?.count == 2)
        #expect(await client.ask(.GET, "\(keys)/keys/\(room)/none?version=1", alice).code == "M_NOT_FOUND")
        #expect(await client.ask(.DELETE, "\(keys)/keys/\(room)/one?version=1", alice).json["count"] == 2)
        #expect(await client.ask(.DELETE, "\(keys)/keys/\(room)?version=1", alice).json["count"] == 1)
        #expect(await client.ask(.DELETE, "\(keys)/keys?version=1", alice).json["count"] == 0)
        let update: JSON = [
            "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": ["public_key": "y"], "version": "1",
        ]
        #expect(await client.ask(.PUT, "\(keys)/version/1", alice, update).json == [:])
        #expect(await client.ask(.GET, "\(keys)/version/1", alice).json["auth_data"] == ["public_key": "y"])
        _ = await client.ask(.POST, "\(keys)/version", alice, update)
        let old = await client.ask(.PUT, "\(keys)/keys?version=1", alice, ["rooms": [:]])
        #expect(old.status == 403 && old.code == "M_WRONG_ROOM_KEYS_VERSION" && old.json["current_version"] == "2")
        #expect(await client.ask(.DELETE, "\(keys)/version/2", alice).json == [:])
        #expect(await client.ask(.GET, "\(keys)/version", alice).json["version"] == "1")
        await client.server.close()
    }

    @Test("a dehydrated device is put away and taken up (MSC3814), as old and new clients do it")
    func dehydrated() async throws {
        let client = ClientSession(try await TestServer())
        let alice = await client.register("alice"), bob = await client.register("bob")
        let path = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
        let user = "@alice:localhost", deviceID = "dehydrated/+"
        #expect(await client.ask(.GET, path, alice).code == "M_NOT_FOUND")
        let data: JSON = ["algorithm": "org.matrix.msc3814.v2", "device_pickle": "x", "nonce": "y"]
        let put = await client.ask(
            .PUT, path, alice,
            [
                "device_id": .string(deviceID), "device_data": data,
                "device_keys": SigningTestKey(seed: 1).deviceKeys(of: user, deviceID),
            ])
        #expect(put.json == ["device_id": .string(deviceID)])
        #expect(await client.ask(.GET, path, alice).json == ["device_id": .string(deviceID), "device_data": data])
        _ = await client.ask(
            .PUT, "\(base)/sendToDevice/x/1", bob, ["messages": [user: [deviceID: ["body": "hello"]]]])
        let events = "\(path)/dehydrated%2F%2B/events"
        let expected: JSON = [["type": "x", "sender": "@bob:localhost", "content": ["body": "hello"]]]
        #expect(await client.ask(.GET, events, alice).json == ["events": expected])
        let first = await client.ask(.POST, events, alice, [:]).json
        #expect(first["events"] == expected)
        let rest = await client.ask(.POST, events, alice, ["next_batch": first["next_batch"] ?? .null]).json
        #expect(rest["events"] == [] && rest["next_batch"]?.stringValue != nil)
        #expect(await client.ask(.GET, "\(path)/OTHER/events", alice).code == "M_FORBIDDEN")
        #expect(await client.ask(.DELETE, path, alice).json == ["device_id": .string(deviceID)])
        #expect(await client.ask(.DELETE, path, alice).code == "M_NOT_FOUND")
        #expect(await client.ask(.PUT, path, alice, ["device_id": "x"]).code == "M_MISSING_PARAM")
        await client.server.close()
    }
}
