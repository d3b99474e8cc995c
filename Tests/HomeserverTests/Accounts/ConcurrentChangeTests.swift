import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

@Suite("Changes of parts at the same time", .onEachEngine)
struct ConcurrentChangeTests {
    private func together(_ count: Int, _ change: @escaping @Sendable (Int) async throws -> Void) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<count { group.addTask { try await change(number) } }
            try await group.waitForAll()
        }
    }

    @Test("tags that are set at the same time are all set")
    func tags() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        let data = server.homeserver.accountData
        try await together(20) { try await data.setTag("u.\($0)", to: ["order": 0.5], of: room, for: alice) }
        #expect(try await data.tags(of: room, for: alice).count == 20)
        try await together(19) { try await data.setTag("u.\($0)", to: nil, of: room, for: alice) }
        #expect(try await data.tags(of: room, for: alice).keys == ["u.19"])
        await server.close()
    }

    @Test("push rules that are changed at the same time are all changed")
    func pushRules() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let rules = server.homeserver.pushRules
        try await together(20) { number in
            try await rules.put(
                PushRule(id: "!room\(number):localhost", actions: .none),
                kind: .room, before: nil, after: nil, of: alice)
        }
        #expect(try await rules.rules(of: alice)[.room].count == 20)
        await server.close()
    }

    @Test("a name and a picture that are set at the same time are both set, and shown in rooms")
    func profile() async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        for round in 0..<5 {
            let (name, picture) = ("Alice \(round)", "mxc://localhost/picture\(round)")
            try await together(2) { number in
                try await server.homeserver.profiles.set(
                    number == 0 ? "displayname" : "avatar_url", to: .string(number == 0 ? name : picture), for: alice)
            }
            let shown = try JSONDocument(
                parsing: try await server.homeserver.reading.state(
                    of: room, key: .member(alice.userID), wholeEvent: false, for: alice)
            ).root
            #expect(shown["displayname"]?.string == name && shown["avatar_url"]?.string == picture)
        }
        await server.close()
    }
}
