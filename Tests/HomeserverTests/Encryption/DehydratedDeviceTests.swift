import Database
import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Dehydrated devices", .onEachEngine)
struct DehydratedDeviceTests {
    private func body(_ deviceID: String, of user: Requester) -> JSON {
        let key = SigningTestKey(seed: 5)
        var keys = key.deviceKeys(of: user.userID.string, deviceID)
        keys["dehydrated"] = true
        return [
            "device_id": .string(deviceID),
            "device_data": ["algorithm": "org.matrix.msc3814.v2", "device_pickle": "x"],
            "initial_device_display_name": "Dehydrated",
            "device_keys": key.sign(keys, as: user.userID.string, keyID: deviceID),
            "one_time_keys": ["a:1": "one"], "fallback_keys": ["a:F": "fallback"],
        ]
    }

    @Test("a device is put away with its keys, receives, and can be read again and again until it is replaced")
    func life() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice"), bob = try await server.user("bob")
        let service = server.homeserver.dehydratedDevices
        await #expect(throws: MatrixError.self) { try await service.get(for: alice) }
        let first = "curve/of+the+first"
        #expect(try await service.put(body(first, of: alice).view, for: alice) == first)
        #expect(try await service.get(for: alice).deviceID == first)
        let query = try await server.homeserver.deviceKeys.query(JSON.object([alice.userID.string: []]).view, for: bob)
            .encoded()
        let keysOfAlice = try JSONDocument(parsing: query).root["device_keys"]?[alice.userID.string]
        #expect(keysOfAlice?[first]?["dehydrated"]?.bool == true)
        let asked = JSON.object([alice.userID.string: [first: "a"]]).view
        for name in ["a:1", "a:F"] {
            let claimed = try await server.homeserver.deviceKeys.claim(asked)
            #expect(claimed["one_time_keys"]?[alice.userID.string]?[first]?.objectValue?.keys == [name])
        }
        for number in 0..<130 {
            try await server.homeserver.toDevice.send(
                "m.room.encrypted", JSON.object([alice.userID.string: ["*": ["n": .integer(Int64(number))]]]).view,
                transactionID: "\(number)", by: bob)
        }
        for _ in 0..<2 {
            let page = try await service.events(of: first, from: nil, for: alice)
            #expect(page.events.count == 100 && page.hasMore)
            let rest = try await service.events(of: first, from: page.next, for: alice)
            #expect(rest.events.count == 30 && !rest.hasMore)
            #expect(try await service.events(of: first, from: rest.next, for: alice).events.isEmpty)
        }
        await #expect(throws: MatrixError.self) { try await service.events(of: alice.deviceID, from: nil, for: alice) }
        await #expect(throws: MatrixError.self) { try await service.events(of: first, from: "x", for: alice) }
        #expect(try await service.put(body("second", of: alice).view, for: alice) == "second")
        #expect(
            try await server.homeserver.devices.devices(of: alice).map(\.deviceID).sorted()
                == [alice.deviceID, "second"].sorted())
        #expect(try await service.events(of: "second", from: nil, for: alice).events.isEmpty)
        // The user's own device is nobody's to replace.
        await #expect(throws: MatrixError.self) {
            try await service.put(body(alice.deviceID, of: alice).view, for: alice)
        }
        #expect(try await service.get(for: alice).deviceID == "second")
        #expect(try await service.delete(for: alice) == "second")
        await #expect(throws: MatrixError.self) { try await service.delete(for: alice) }
        // Ending it as any device ends does the same.
        _ = try await service.put(body("third", of: alice).view, for: alice)
        try await server.homeserver.accounts.logOutAll(alice)
        await #expect(throws: MatrixError.self) { try await service.get(for: alice) }
        await server.close()
    }
}
