import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Pushers", .onEachEngine)
struct PusherTests {
    private static let phone: JSON = [
        "kind": "http", "app_id": "org.example.app", "pushkey": "key", "app_display_name": "App",
        "device_display_name": "Phone", "lang": "en", "profile_tag": "tag",
        "data": ["url": "https://push.example/_matrix/push/v1/notify", "format": "event_id_only", "own": [1, 2]],
    ]

    private let server: TestServer
    private let alice: Requester
    private let bob: Requester

    init() async throws {
        server = try await TestServer()
        alice = try await server.user("alice")
        bob = try await server.user("bob")
    }

    private func set(_ change: [String: JSON?] = [:], for user: Requester) async throws {
        var body = Self.phone
        for (name, value) in change { body[name] = value }
        try await server.homeserver.pushers.set(try JSONDocument(parsing: body.encoded()).root, for: user)
    }

    private func pushers(of user: Requester) async throws -> [JSON] {
        try await server.homeserver.pushers.pushers(of: user)["pushers"]?.arrayValue ?? []
    }

    @Test("a pusher is told as it was set, changed by setting it again, and gone when its kind is null")
    func life() async throws {
        try await set(for: alice)
        #expect(try await pushers(of: alice) == [Self.phone])
        try await set(["lang": "de", "profile_tag": .some(nil)], for: alice)
        #expect(try await pushers(of: alice).map { $0["lang"] } == ["de"])
        try await set(["pushkey": "another"], for: alice)
        #expect(try await pushers(of: alice).count == 2)
        #expect(try await pushers(of: bob) == [])
        try await set(["kind": .null], for: alice)
        #expect(try await pushers(of: alice).map { $0["pushkey"] } == ["another"])
        await server.close()
    }

    @Test("a key has one user, unless another one is to be added")
    func others() async throws {
        try await set(for: alice)
        try await set(["append": true], for: bob)
        #expect(try await pushers(of: alice).count == 1)
        #expect(try await pushers(of: bob).count == 1)
        try await set(for: bob)
        #expect(try await pushers(of: alice).isEmpty)
        #expect(try await pushers(of: bob).count == 1)
        await server.close()
    }

    @Test("pushers end with the device that set them")
    func devices() async throws {
        let session = try await server.homeserver.accounts.logIn(
            user: "alice", password: "alice", deviceID: nil, displayName: nil)
        let tablet = try await server.homeserver.accounts.tokens.requester(for: session.accessToken)
        try await set(for: alice)
        try await set(["pushkey": "of the tablet"], for: tablet)
        try await server.homeserver.accounts.logOut(tablet)
        #expect(try await pushers(of: alice).map { $0["pushkey"] } == ["key"])
        try await server.homeserver.accounts.logOutAll(alice)
        #expect(try await pushers(of: alice) == [])
        await server.close()
    }

    @Test("what can't be a pusher is refused, and nobody has more than so many")
    func refused() async throws {
        for (name, value) in [
            ("kind", "email"), ("kind", "carrier pigeon"), ("app_id", .string(String(repeating: "x", count: 65))),
            ("pushkey", .string(String(repeating: "x", count: 513))), ("lang", .null), ("data", .null), ("data", [:]),
            ("data", ["url": "http://push.example/_matrix/push/v1/notify"]),
            ("data", ["url": "https://push.example/elsewhere"]), ("data", ["url": "https:///_matrix/push/v1/notify"]),
        ] as [(String, JSON)] {
            await #expect(throws: MatrixError.self, "\(name) \(value)") { try await set([name: value], for: alice) }
        }
        #expect(try await pushers(of: alice) == [])
        for number in 0..<100 { try await set(["pushkey": .string("\(number)")], for: alice) }
        await #expect(throws: MatrixError.self) { try await set(["pushkey": "one more"], for: alice) }
        try await set(["pushkey": "7", "lang": "fr"], for: alice)
        #expect(try await pushers(of: alice).count == 100)
        await server.close()
    }
}
