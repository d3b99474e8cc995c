import Homeserver
import MatrixCore
import RoostTestSupport

/// Joining a large room: how long until a user can read and write there, and until all members are known. In one process, with
/// everything but the network: keys fetched and checked, signatures verified, events stored.
func joinSection() async throws {
    let network = TestNetwork()
    let name = ServerName(unchecked: "here.example")
    let server = try await TestServer(transport: network.transport(of: name)) {
        $0.serverName = name
    }
    network.connect(server.homeserver)
    try await server.homeserver.startJobs()
    let alice = try await server.user("alice")
    let room = try LargeRoom(members: 20_000, servers: 500, on: network, clock: server.clock)
    let memory = Bench.memory()
    let (start, cpu) = (Bench.wallSeconds(), Bench.cpuSeconds())
    try await server.homeserver.memberships.join(room.roomID, reason: nil, via: [room.resident], by: alice)
    try await server.say("here I am", in: room.roomID, by: alice)
    keep(try await server.sync(alice, filter: #"{"room":{"state":{"lazy_load_members":true}}}"#))
    Bench.report("20,000 members on 500 servers: read and written after", (Bench.wallSeconds() - start) * 1e3, "ms")
    let members = try await server.homeserver.reading.joinedMembers(of: room.roomID, for: alice)
    Bench.report("the same, all members known after", Bench.wallSeconds() - start, "s")
    Bench.report("the same, CPU", Bench.cpuSeconds() - cpu, "s")
    Bench.report("the same, memory it takes", Bench.memory() - memory, "MB")
    let count = try JSONDocument(parsing: members, limits: .envelope).root["joined"]?.members.reduce(0) { count, _ in
        count + 1
    }
    Bench.report("members told", Double(count ?? 0), "")
    await server.close()
}
