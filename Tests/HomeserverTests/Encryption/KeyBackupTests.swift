import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Backups of room keys", .onEachEngine)
struct KeyBackupTests {
    private func key(
        _ room: String, _ session: String, index: Int64 = 0, forwarded: Int64 = 0, verified: Bool = false,
        data: String = "x"
    ) -> BackedUpKey {
        BackedUpKey(
            roomID: room, sessionID: session,
            rank: RoomKeyRank(firstMessageIndex: index, forwardedCount: forwarded, isVerified: verified),
            sessionData: JSON.object(["c": .string(data)]).encoded())
    }

    private func create(_ server: TestServer, _ user: Requester) async throws -> String {
        try await server.homeserver.keyBackups.create(
            algorithm: "m.example", authData: JSON.object(["public_key": "x"]).view, for: user)
    }

    private func get(
        _ selection: RoomKeySelection, _ version: String, _ server: TestServer, _ user: Requester
    ) async throws -> JSON {
        try JSONDocument(
            parsing: try await server.homeserver.keyBackups.get(selection, version: version, for: user)
        ).root.json
    }

    @Test("versions go up and are never given again; the newest is the one that is written to")
    func versions() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let backups = server.homeserver.keyBackups
        await #expect(throws: MatrixError.self) { try await backups.info(nil, for: alice) }
        #expect(try await create(server, alice) == "1")
        #expect(try await create(server, alice) == "2")
        #expect(try await backups.info(nil, for: alice)["version"] == "2")
        #expect(try await backups.info("1", for: alice)["version"] == "1")
        do {
            _ = try await backups.put([key("!a:b", "s")], version: "1", for: alice)
            Issue.record("an old backup was written to")
        } catch let error as MatrixError {
            #expect(error.code == .wrongRoomKeysVersion && error.extra["current_version"] == "2")
        }
        for unknown in ["3", "0", "-1", "text", ""] {
            await #expect(throws: MatrixError.self) { try await backups.put([], version: unknown, for: alice) }
        }
        try await backups.delete("2", for: alice)
        try await backups.delete("2", for: alice)
        await #expect(throws: MatrixError.self) { try await backups.delete("3", for: alice) }
        await #expect(throws: MatrixError.self) { try await backups.info("2", for: alice) }
        #expect(try await backups.info(nil, for: alice)["version"] == "1")
        #expect(try await create(server, alice) == "3")
        let other = JSON.object(["signatures": [:]])
        try await backups.update("3", algorithm: "m.example", authData: other.view, bodyVersion: "3", for: alice)
        #expect(
            try JSONDocument(parsing: try await backups.info(nil, for: alice).encoded()).root["auth_data"]?.json
                == other)
        for (algorithm, version) in [("m.other", "3"), ("m.example", "1")] {
            await #expect(throws: MatrixError.self) {
                try await backups.update(
                    "3", algorithm: algorithm, authData: other.view, bodyVersion: version, for: alice)
            }
        }
        await server.close()
    }

    @Test("of two keys the verified one is kept, then the one with the lower index, then the less forwarded")
    func replacement() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let version = try await create(server, alice)
        var etags: [String] = []
        // Each is put on those before; whether it takes the place.
        for (number, (verified, index, forwarded, isKept)) in [
            (false, 5, 5, true), (false, 6, 0, false), (false, 5, 6, false), (false, 5, 5, false), (false, 5, 4, true),
            (false, 4, 9, true), (true, 9, 9, true), (false, 0, 0, false), (true, 9, 8, true), (true, 3, 9, true),
        ].enumerated() {
            let state = try await server.homeserver.keyBackups.put(
                [
                    key(
                        "!a:b", "s", index: Int64(index), forwarded: Int64(forwarded), verified: verified,
                        data: "\(number)")
                ], version: version, for: alice)
            let stored = try await get(.session(room: "!a:b", session: "s"), version, server, alice)
            #expect((stored["session_data"] == ["c": .string("\(number)")]) == isKept, "\(number)")
            #expect((etags.last != state.etag) == isKept, "\(number)")
            #expect(state.count == 1)
            etags.append(state.etag)
        }
        await server.close()
    }

    @Test("keys are put, read and deleted all, by room and singly, and counted rightly")
    func keys() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let backups = server.homeserver.keyBackups
        let version = try await create(server, alice)
        #expect(try await get(.all, version, server, alice) == ["rooms": [:]])
        #expect(try await get(.room("!a:b"), version, server, alice) == ["sessions": [:]])
        await #expect(throws: MatrixError.self) {
            try await get(.session(room: "!a:b", session: "1"), version, server, alice)
        }
        var state = try await backups.put(
            [key("!a:b", "1"), key("!a:b", "2"), key("!c:d", "1")], version: version, for: alice)
        #expect(state.count == 3)
        let one: JSON = [
            "first_message_index": 0, "forwarded_count": 0, "is_verified": false, "session_data": ["c": "x"],
        ]
        let all: JSON = ["rooms": ["!a:b": ["sessions": ["1": one, "2": one]], "!c:d": ["sessions": ["1": one]]]]
        #expect(try await get(.all, version, server, alice) == all)
        #expect(try await get(.room("!c:d"), version, server, alice) == ["sessions": ["1": one]])
        #expect(try await get(.session(room: "!a:b", session: "2"), version, server, alice) == one)
        await #expect(throws: MatrixError.self) { try await get(.all, version, server, bob) }
        // Read back as they are written.
        let body = try KeyBackupService.keys(all.view)
        #expect(try await backups.put(body, version: version, for: alice) == state)
        let before = state.etag
        state = try await backups.delete(.session(room: "!a:b", session: "2"), version: version, for: alice)
        #expect(state.count == 2 && state.etag != before)
        #expect(try await backups.delete(.session(room: "!a:b", session: "2"), version: version, for: alice) == state)
        #expect(try await backups.delete(.room("!a:b"), version: version, for: alice).count == 1)
        #expect(try await backups.delete(.all, version: version, for: alice).count == 0)
        #expect(try await get(.all, version, server, alice) == ["rooms": [:]])
        #expect(try await backups.info(nil, for: alice)["count"] == 0)
        await server.close()
    }

    @Test("ten thousand keys in one request; devices that write at once lose nothing and count rightly")
    func many() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let backups = server.homeserver.keyBackups
        let version = try await create(server, alice)
        let keys = (0..<10_000).map { key("!\($0 % 37):b", "session \($0)") }
        #expect(try await backups.put(keys, version: version, for: alice).count == 10_000)
        #expect(try await get(.room("!5:b"), version, server, alice)["sessions"]?.objectValue?.count == 271)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for device in 0..<5 {
                group.addTask {
                    for part in 0..<5 {
                        let start = 10_000 + device * 40 + part * 20
                        _ = try await backups.put(
                            (start..<start + 60).map { key("!x:b", "session \($0)") }, version: version, for: alice)
                    }
                }
            }
            try await group.waitForAll()
        }
        // 4 devices × 40 + 4 parts × 20 + 60
        #expect(try await backups.info(nil, for: alice)["count"] == 10_300)
        #expect(try await get(.room("!x:b"), version, server, alice)["sessions"]?.objectValue?.count == 300)
        #expect(try await backups.delete(.all, version: version, for: alice).count == 0)
        await server.close()
    }
}
