import MatrixCore
import NIOCore

/// Fifty users of a room whose syncs wait: until the slowest of them has a message.
@Sendable func waiting50Scenario(_ subject: Subject) async throws {
    let users = try await subject.users("waiting", 51)
    try await subject.room(users)
    users[0].isSender = true
    for user in users { try await user.beginWaiting() }
    try await Task.sleep(for: .seconds(3))
    var slowest: [Double] = []
    let cpu = subject.server.cpuSeconds()
    for number in 0..<50 {
        let arrivals = users.dropFirst().map { $0.expectAnswer() }
        let sent = try await users[0].exchange(
            .PUT, "/_matrix/client/v3/rooms/\(users[0].room)/send/m.room.message/\(number)",
            #"{"msgtype":"m.text","body":"to all of you"}"#
        ).sent
        var last = 0.0
        for arrival in arrivals { last = max(last, try await arrival.get() - sent) }
        slowest.append(last * 1e3)
        // Until all of them wait again.
        try await Task.sleep(for: .milliseconds(300))
    }
    subject.note("the slowest of 50 has it, median", percentile(slowest, 0.5), "ms")
    subject.note("the same, worst of 50 messages", slowest.max()!, "ms")
    subject.note("CPU for each message", (subject.server.cpuSeconds() - cpu) / 50 * 1e3, "ms")
}
