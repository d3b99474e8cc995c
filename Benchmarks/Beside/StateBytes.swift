/// What a join or leave takes on the disk, and what a message does. The server is ended before its files are looked at.
@Sendable func stateBytesScenario(_ subject: Subject) async throws {
    let users = try await subject.users("member", 50)
    let room = try await subject.room([users[0]])
    try await subject.restart()
    await subject.server.end()
    let before = subject.databaseBytes()
    try await subject.start()
    // Who made the room stays there.
    for number in 0..<subject.events {
        let user = users[1 + number / 2 % 49]
        let step = number % 2 == 0 ? "join" : "leave"
        try await user.ask(.POST, "/_matrix/client/v3/rooms/\(room)/\(step)", "{}")
    }
    await subject.server.end()
    let between = subject.databaseBytes()
    try await subject.start()
    let lanes = try await (0..<4).asyncMap { _ in try await users[0].another() }
    try await withThrowingTaskGroup(of: Void.self) { tasks in
        for (lane, client) in lanes.enumerated() {
            tasks.addTask {
                for number in stride(from: lane, to: subject.events, by: lanes.count) {
                    try await client.ask(
                        .PUT, "/_matrix/client/v3/rooms/\(room)/send/m.room.message/\(number)",
                        #"{"msgtype":"m.text","body":"message \#(number): the quick brown fox"}"#)
                }
            }
        }
        try await tasks.waitForAll()
    }
    await subject.server.end()
    let after = subject.databaseBytes()
    subject.note("database before", before / 1024, "KiB")
    subject.note("events of each kind", Double(subject.events), "")
    subject.note("a join or leave", (between - before) / Double(subject.events), "bytes")
    subject.note("a message", (after - between) / Double(subject.events), "bytes")
    try await subject.start()
}

extension Sequence {
    func asyncMap<T>(_ transform: (Element) async throws -> T) async rethrows -> [T] {
        var result: [T] = []
        for element in self { result.append(try await transform(element)) }
        return result
    }
}
