import Database
import Homeserver
import Logging
import MatrixCore
import RoostTestSupport

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// What storing costs: writes alone and in groups, bytes written, states, pages. On SQLite in a temporary directory, and on the
/// PostgreSQL at `ROOST_TEST_POSTGRES` if that is set: CPU time is then that of this process alone, and what is written that
/// of the server's log.
func databaseSection() async throws {
    try await everything()
    guard EngineKind.cluster != nil else { return }
    try await EngineKind.onPostgreSQL { try await everything() }
}

private func everything() async throws {
    try await writes()
    try await states()
    try await pages()
}

private func report(_ name: String, _ value: Double, _ unit: String) {
    Bench.report(EngineKind.current == .postgresql ? "PostgreSQL, \(name)" : name, value, unit)
}

/// KiB that were written so far.
private func writtenKiB() async throws -> Double {
    guard EngineKind.current == .postgresql, let cluster = EngineKind.cluster else { return writtenByProcess() }
    let rows = try await PostgreSQLAdministration.run(
        "SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint", at: cluster)
    guard case .integer(let bytes)? = rows.first?.first else { return 0 }
    return Double(bytes) / 1024
}

/// KiB that this process had written to disk so far; 0 where there is no /proc.
private func writtenByProcess() -> Double {
    guard let file = fopen("/proc/self/io", "r") else { return 0 }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    while fgets(&line, 256, file) != nil {
        let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        if text.hasPrefix("write_bytes:"), let bytes = Double(text.split(separator: " ")[1].filter { $0 != "\n" }) {
            return bytes / 1024
        }
    }
    return 0
}

private func writes() async throws {
    for group in [1, 8, 64] {
        let server = try await TestServer()
        let alice = try await server.user("alice")
        var rooms: [RoomID] = []
        for _ in 0..<group {
            server.clock.advance(by: 1)
            rooms.append(try await server.room(of: alice))
        }
        // A database of some size, so that pages are touched as in life.
        for number in 0..<2_000 {
            try await server.say("warming up, message \(number)", in: rooms[number % group], by: alice)
        }
        let each = 1_600 / group
        let (written, start, cpu) = (try await writtenKiB(), Bench.wallSeconds(), Bench.cpuSeconds())
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            for room in rooms {
                tasks.addTask {
                    for number in 0..<each {
                        try await server.say(
                            "message \(number): the quick brown fox jumps over the lazy dog", in: room, by: alice)
                    }
                }
            }
            try await tasks.waitForAll()
        }
        let count = Double(each * group)
        let name = group == 1 ? "messages alone" : "messages in groups of \(group)"
        report("\(name)", count / (Bench.wallSeconds() - start), "/s")
        report("\(name), CPU", (Bench.cpuSeconds() - cpu) / count * 1e6, "µs")
        report("\(name), written", (try await writtenKiB() - written) / count, "KiB")
        await server.close()
    }
}

private func states() async throws {
    let directory = TemporaryDirectory()
    var logger = Logger(label: "bench")
    logger.logLevel = .critical
    let database = Database(engine: try await EngineKind.engine(in: directory, logger: logger))
    let room = RoomNID(1)
    let members = 100_000
    var state = StateNID(0)
    var nextRow: Int64 = 1
    func change(_ changes: [StateKeyNID: EventNID?]) async throws -> Int {
        let (from, row) = (state, nextRow)
        let change = try await database.read { reader in
            var tree = StateTree(rows: database.stateRows, room: room)
            return try await tree.change(changes, in: from, nextRow: row, reader)
        }
        var write = Write()
        write.insert(change, room: room)
        try await database.write(write)
        state = change.state
        nextRow += Int64(change.rows.count)
        return change.rows.reduce(0) { $0 + $1.bytes.count }
    }
    let build = Bench.cpuSeconds()
    let all = try await change(
        Dictionary(
            uniqueKeysWithValues: (1...members).map {
                (StateKeyNID(Int64($0)), Optional(EventNID(Int64($0) + 1_000_000)))
            }))
    report("state of 100,000 members, made at once", (Bench.cpuSeconds() - build) * 1e3, "ms")
    report("the same, size", Double(all) / 1024, "KiB")
    var generator = SeededGenerator(seed: 1)
    var bytes = 0
    let before = state
    for number in 0..<500 {
        bytes += try await change([
            StateKeyNID(Int64.random(in: 1...Int64(members), using: &generator)): EventNID(Int64(5_000_000 + number))
        ])
    }
    report("a state change in it, size", Double(bytes) / 500, "bytes")
    let (old, new) = (before, state)
    let probes = (0..<20_000).map { _ in StateKeyNID(Int64.random(in: 1...Int64(members), using: &generator)) }
    let lookups = Bench.cpuSeconds()
    try await database.read { reader in
        let tree = StateTree(rows: database.stateRows, room: room)
        for probe in probes { keep(try await tree.event(for: probe, in: new, reader)) }
    }
    report("one key of it", (Bench.cpuSeconds() - lookups) / 20_000 * 1e6, "µs")
    let comparing = Bench.cpuSeconds()
    try await database.read { reader in
        keep(try await StateTree(rows: database.stateRows, room: room).differences(from: old, to: new, reader))
    }
    report("comparing states 500 changes apart", (Bench.cpuSeconds() - comparing) * 1e3, "ms")
    await database.close()
}

private func pages() async throws {
    let server = try await TestServer()
    let alice = try await server.user("alice")
    let room = try await server.room(of: alice)
    for number in 0..<2_000 { try await server.say("message \(number)", in: room, by: alice) }
    let start = Bench.cpuSeconds()
    for _ in 0..<200 {
        keep(
            try await server.homeserver.reading.messages(
                in: room, .init(from: nil, to: nil, backwards: true, limit: 100, filter: RoomEventFilter()), for: alice)
        )
    }
    report("a page of 100 messages", (Bench.cpuSeconds() - start) / 200 * 1e6, "µs")
    let memory = Bench.memory()
    var rooms: [RoomID] = []
    for _ in 0..<500 {
        server.clock.advance(by: 1)
        rooms.append(try await server.room(of: alice))
    }
    for room in rooms { try await server.say("hello", in: room, by: alice) }
    report("memory for each of 500 rooms in use", (Bench.memory() - memory) * 1e3 / 500, "kB")
    await server.close()
}
