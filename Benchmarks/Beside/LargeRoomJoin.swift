import Homeserver
import MatrixCore
import RoostTestSupport

/// Joining a room of 20,000 members on 500 other servers with a key each: until a user is in, has written and read, and until all members
/// are known.
@Sendable func largeRoomScenario(_ subject: Subject) async throws {
    let members = 20_000
    let remotes = try await RemoteServers()
    let room = try LargeRoom(members: members, on: (0..<500).map { remotes.name($0) }, now: millisecondsNow)
    remotes.answer { room.answer($0) ?? ServerResponse(status: 404, body: Array(notHere.utf8)) }
    let user = try await subject.users("newcomer", 1)[0]
    try await user.ask(.GET, "/_matrix/client/v3/sync?filter=\(lazy)", "")
    let server = subject.server!
    let peak = PeakMemory(of: server)
    let (cpu, memory, start) = (server.cpuSeconds(), server.proportionalMemory(), Bench.wallSeconds())
    let path = HostileServer.quote(room.roomID.string)
    let via = HostileServer.quote(room.resident.string)
    try await user.ask(.POST, "/_matrix/client/v3/join/\(path)?server_name=\(via)&via=\(via)", "{}")
    subject.note("the join is answered after", Bench.wallSeconds() - start, "s")
    try await user.ask(
        .PUT, "/_matrix/client/v3/rooms/\(path)/send/m.room.message/1", #"{"msgtype":"m.text","body":"here I am"}"#)
    while true {
        let sync = try await user.ask(.GET, "/_matrix/client/v3/sync?filter=\(lazy)", "")
        let timeline = sync["rooms"]?["join"]?[room.roomID.string]?["timeline"]?["events"]?.elements
        if timeline?.contains(where: { $0["content"]?["body"]?.string == "here I am" }) == true { break }
        try await Task.sleep(for: .milliseconds(20))
    }
    subject.note("written and read (lazy members) after", Bench.wallSeconds() - start, "s")
    while true {
        let answer = try await user.ask(.GET, "/_matrix/client/v3/rooms/\(path)/joined_members", "")
        let count = answer["joined"]?.members.reduce(0) { count, _ in count + 1 } ?? 0
        if count >= members { break }
        try await Task.sleep(for: .milliseconds(50))
    }
    subject.note("all 20,000 members told after", Bench.wallSeconds() - start, "s")
    subject.note("CPU until then", server.cpuSeconds() - cpu, "s")
    subject.note("memory (PSS) before", memory, "MiB")
    subject.note("memory (PSS), the most until then", await peak.end(), "MiB")
    await remotes.close()
}

private let lazy = "%7B%22room%22:%7B%22state%22:%7B%22lazy_load_members%22:true%7D%7D%7D"

/// The most memory of a server, looked at five times a second.
private struct PeakMemory {
    private let task: Task<Double, Never>

    init(of server: ServerProcess) {
        task = Task {
            var most = 0.0
            while !Task.isCancelled {
                most = max(most, server.proportionalMemory())
                try? await Task.sleep(for: .milliseconds(200))
            }
            return max(most, server.proportionalMemory())
        }
    }

    func end() async -> Double {
        task.cancel()
        return await task.value
    }
}
