import Homeserver
import MatrixCore
import RoostTestSupport

/// What a client sees first, by how many rooms its account is in: sliding sync with the window and the state that clients of
/// today ask for, on a server that has just started, and on one that knows the account.
func slidingSection() async throws {
    for count in [20, 2_000] {
        let directory = TemporaryDirectory()
        var server = try await TestServer(directory: directory)
        var alice = try await server.user("alice")
        let bob = try await server.user("bob")
        for number in 0..<count {
            server.clock.advance(by: 1)
            let room = try await server.room(of: bob) { $0.name = "Room \(number)" }
            try await server.homeserver.memberships.join(room, reason: nil, by: alice)
            for message in 0..<5 { try await server.say("message \(message) of room \(number)", in: room, by: bob) }
        }
        let token = try await server.homeserver.accounts.logIn(
            user: "alice", password: "alice", deviceID: nil, displayName: nil
        ).accessToken
        await server.close()
        server = try await TestServer(directory: directory)
        alice = try await server.homeserver.accounts.tokens.requester(for: token)

        let body: JSON = [
            "conn_id": "bench",
            "lists": [
                "all": [
                    "ranges": [[0, 19]], "timeline_limit": 1,
                    "required_state": [
                        ["m.room.name", ""], ["m.room.avatar", ""], ["m.room.encryption", ""],
                        ["m.room.member", "$LAZY"],
                        ["m.room.member", "$ME"], ["m.room.power_levels", ""],
                    ],
                ]
            ],
            "extensions": [
                "to_device": ["enabled": true], "e2ee": ["enabled": true], "account_data": ["enabled": true],
                "receipts": ["enabled": true], "typing": ["enabled": true],
            ],
        ]
        let document = try JSONDocument(parsing: body.encoded()).root
        func first() async throws {
            let request = try SlidingRequest(document, pos: nil, timeout: 0, presence: nil, for: alice.userID)
            keep(try await server.homeserver.slidingSync.sync(request, for: alice))
        }
        let (wall, cpu) = (Bench.wallSeconds(), Bench.cpuSeconds())
        try await first()
        Bench.report("first answer after a start, \(count) rooms", (Bench.wallSeconds() - wall) * 1e3, "ms")
        Bench.report("the same, CPU", (Bench.cpuSeconds() - cpu) * 1e3, "ms")
        var best = Double.infinity
        for _ in 0..<10 {
            let start = Bench.cpuSeconds()
            for _ in 0..<10 { try await first() }
            best = min(best, (Bench.cpuSeconds() - start) / 10)
        }
        Bench.report("first answer again, \(count) rooms, CPU", best * 1e3, "ms")
        await server.close()
    }
}
