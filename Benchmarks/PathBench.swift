import Database
import Homeserver
import MatrixCore
import RoostTestSupport

/// The hot paths, each so often as asked, for `scripts/instructions`: what it takes away from the instructions of a run with many
/// is those of a run with few. On SQLite, without HTTP.
enum Path: String, CaseIterable {
    case message, reaction, join, leave, nothingNew, oneNew, initialSync, slidingSync, page, members, search
    case toDevice, claim, query, uploadKeys

    func run(_ count: Int) async throws {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        let room = try await server.room(of: alice)
        switch self {
        case .message:
            for number in 0..<count {
                try await server.say("message \(number): the quick brown fox", in: room, by: alice)
            }
        case .reaction:
            let event = try await server.say("message", in: room, by: alice)
            for number in 0..<count {
                keep(
                    try await server.homeserver.sending.send(
                        "m.reaction",
                        content: [
                            "m.relates_to": [
                                "rel_type": "m.annotation", "event_id": .string(event.string),
                                "key": .string("\(number)"),
                            ]
                        ], to: room, transactionID: "\(number)", by: alice))
            }
        case .join, .leave:
            let bob = try await server.user("bob")
            for _ in 0..<count {
                try await server.homeserver.memberships.join(room, reason: nil, by: bob)
                try await server.homeserver.memberships.leave(room, reason: nil, by: bob)
            }
        case .nothingNew, .oneNew:
            var since = try await server.sync(alice)["next_batch"]?.string
            for number in 0..<count {
                if self == .oneNew {
                    try await server.say("message \(number): the quick brown fox", in: room, by: alice)
                }
                since = try await server.sync(alice, since: since)["next_batch"]?.string
            }
        case .initialSync, .slidingSync:
            for number in 0..<20 {
                // Rooms that are made alike at the same time would have the same ID.
                server.clock.advance(by: 1)
                let room = try await server.room(of: alice) { $0.name = "Room \(number)" }
                for message in 0..<5 { try await server.say("message \(message)", in: room, by: alice) }
            }
            for _ in 0..<count {
                if self == .initialSync {
                    keep(try await server.sync(alice))
                } else {
                    keep(
                        try await server.slidingSync(
                            alice,
                            [
                                "lists": [
                                    "all": ["ranges": [[0, 19]], "timeline_limit": 1, "required_state": [["*", "*"]]]
                                ]
                            ]))
                }
            }
        case .page:
            for number in 0..<100 {
                try await server.say("message \(number): the quick brown fox", in: room, by: alice)
            }
            for _ in 0..<count { keep(try await server.history(of: room, for: alice, page: 200)) }
        case .members:
            for number in 0..<100 {
                let other = try await server.user("user\(number)")
                try await server.homeserver.memberships.join(room, reason: nil, by: other)
            }
            for _ in 0..<count { keep(try await server.homeserver.reading.joinedMembers(of: room, for: alice)) }
        case .search:
            for number in 0..<100 {
                try await server.say(number % 10 == 0 ? "a needle \(number)" : "the hay \(number)", in: room, by: alice)
            }
            let request = try SearchRequest(
                try JSONDocument(
                    parsing: Array(
                        #"{"search_term":"needle","order_by":"recent"}"#.utf8)
                ).root, nextBatch: nil)
            // The first one has the messages taken into the index, at a time of its own: only what comes after can be compared.
            keep(try await server.homeserver.search.search(request, for: alice))
            while try await !server.homeserver.database.searchQueue(limit: 1).isEmpty {
                try await Task.sleep(for: .milliseconds(20))
            }
            for _ in 0..<count { keep(try await server.homeserver.search.search(request, for: alice)) }
        case .toDevice, .claim, .query, .uploadKeys:
            try await runKeys(count, server, alice)
        }
        await server.close()
    }

    private func runKeys(_ count: Int, _ server: TestServer, _ alice: Requester) async throws {
        func parsed(_ json: JSON) throws -> JSONView { try JSONDocument(parsing: json.encoded()).root }
        func keys(_ from: Int, _ count: Int) -> JSON {
            .object(
                JSONObject(
                    (from..<from + count).map {
                        ("signed_curve25519:k\($0)", ["key": .string("key \($0)"), "signatures": [:]])
                    }))
        }
        var users: [Requester] = []
        if self == .uploadKeys {
            // Ten times fifty for each of as many as the longest count has need of: a device may have a thousand.
            for number in 0..<6 { users.append(try await server.user("user\(number)")) }
            for number in 0..<count {
                keep(
                    try await server.homeserver.deviceKeys.upload(
                        try parsed(["one_time_keys": keys(number % 10 * 50, 50)]), for: users[number / 10 % 6]))
            }
            return
        }
        for number in 0..<20 {
            let user = try await server.user("user\(number)")
            users.append(user)
            let device: JSON = [
                "user_id": .string(user.userID.string), "device_id": .string(user.deviceID), "algorithms": [],
                "keys": ["curve25519:\(user.deviceID)": "key"], "signatures": [:],
            ]
            keep(
                try await server.homeserver.deviceKeys.upload(
                    try parsed(["device_keys": device, "one_time_keys": keys(0, self == .claim ? count : 1)]), for: user
                ))
        }
        for number in 0..<count {
            switch self {
            case .toDevice:
                let messages = JSON.object(
                    JSONObject(users.map { ($0.userID.string, [$0.deviceID: ["text": .string("secret \(number)")]]) }))
                try await server.homeserver.toDevice.send(
                    "m.room.encrypted", try parsed(messages), transactionID: "\(number)", by: alice)
            case .claim:
                let asked = JSON.object(
                    JSONObject(users.map { ($0.userID.string, [$0.deviceID: "signed_curve25519"]) }))
                keep(try await server.homeserver.deviceKeys.claim(try parsed(asked)))
            default:
                let asked = JSON.object(JSONObject(users.map { ($0.userID.string, []) }))
                keep(try await server.homeserver.deviceKeys.query(try parsed(asked), timeout: 0, for: alice))
            }
        }
    }
}

func pathSection(_ name: String, _ count: Int) async throws {
    if name == "names" {
        for path in Path.allCases { print(path.rawValue) }
    } else if let path = Path(rawValue: name) {
        try await path.run(count)
    } else {
        print("There is no path of that name; `path names` lists them.")
    }
}
