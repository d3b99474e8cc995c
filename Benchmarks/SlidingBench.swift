import Homeserver
import MatrixCore
import RoostTestSupport

/// What a client sees first, by how many rooms its account is in: sliding sync with the window and the state that clients of
/// today ask for, on a server that has just started, and on one that knows the account. Both accounts are measured by turns.
func slidingSection() async throws {
    var accounts: [SlidingAccount] = []
    for rooms in [20, 2_000] { accounts.append(try await SlidingAccount(rooms: rooms)) }
    for account in accounts {
        let (wall, cpu) = (Bench.wallSeconds(), Bench.cpuSeconds())
        try await account.first()
        Bench.report("first answer after a start, \(account.rooms) rooms", (Bench.wallSeconds() - wall) * 1e3, "ms")
        Bench.report("the same, CPU", (Bench.cpuSeconds() - cpu) * 1e3, "ms")
    }
    var best = accounts.map { _ in Double.infinity }
    for _ in 0..<20 {
        for (index, account) in accounts.enumerated() {
            let start = Bench.cpuSeconds()
            for _ in 0..<10 { try await account.first() }
            best[index] = min(best[index], (Bench.cpuSeconds() - start) / 10)
        }
    }
    for (account, best) in zip(accounts, best) {
        Bench.report("first answer again, \(account.rooms) rooms, CPU", best * 1e3, "ms")
        await account.server.close()
    }
}

/// An account in some rooms, on a server of its own that has been started anew.
private struct SlidingAccount {
    let rooms: Int
    let server: TestServer
    private let alice: Requester
    private let body: JSONView
    private let directory = TemporaryDirectory()

    init(rooms count: Int) async throws {
        rooms = count
        var server = try await TestServer(directory: directory)
        let alice = try await server.user("alice")
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
        self.server = server
        self.alice = try await server.homeserver.accounts.tokens.requester(for: token)
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
        self.body = try JSONDocument(parsing: body.encoded()).root
    }

    /// A first screen.
    func first() async throws {
        let request = try SlidingRequest(body, pos: nil, timeout: 0, presence: nil, for: alice.userID)
        keep(try await server.homeserver.slidingSync.sync(request, for: alice))
    }
}
