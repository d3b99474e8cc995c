import MatrixCore

/// Looks for contradictions in the database: references to what isn't there, positions given twice, state trees that can't
/// be read, extremities and memberships that don't follow from the state. Reads everything once, in pages; may run while the
/// server does.
public struct ConsistencyCheck: Sendable {
    private let database: Database
    /// Problems that are told at most; more are counted.
    private static let mostTold = 100
    private static let page = 500

    public init(_ database: Database) { self.database = database }

    /// What a check found.
    public struct Report: Sendable {
        public fileprivate(set) var problems: [String] = []
        public fileprivate(set) var count = 0
        public fileprivate(set) var events = 0
        public fileprivate(set) var rooms = 0
        public var isClean: Bool { count == 0 }

        fileprivate mutating func note(_ problem: @autoclosure () -> String) {
            count += 1
            if problems.count < ConsistencyCheck.mostTold { problems.append(problem()) }
        }
    }

    /// - Throws: what says nothing of the database, such as that it can't be reached. What can't be read is a problem of the report.
    public func run() async throws -> Report {
        var report = Report()
        try await look("files", &report) { report in
            for problem in try await database.engine.damage() { report.note(problem) }
        }
        try await look("positions", &report, checkPositions)
        try await look("events", &report, checkEvents)
        try await look("rooms", &report, checkRooms)
        try await look("other tables", &report, checkReferences)
        return report
    }

    /// Goes on after damage that ends one look.
    private func look(
        _ what: String, _ report: inout Report, _ check: (inout Report) async throws -> Void
    ) async throws {
        do { try await check(&report) } catch let error as DatabaseError {
            switch error {
            case .corrupt, .engine: report.note("the \(what) can't be read to the end: \(error)")
            default: throw error
            }
        }
    }

    // MARK: - Positions

    private static let doubled = Statement(
        "SELECT position FROM events WHERE position >= $1 AND position <= $2 GROUP BY position HAVING count(*) > 1")
    private static let positionsAtOnce: Int64 = 100_000
    private static let following = Statement("SELECT min(position) FROM events WHERE position > $1")
    private static let highest = Statement("SELECT max(position) FROM events")
    private static let numbersBeyond = Statement(
        "SELECT count(*) FROM events WHERE event_nid >= (SELECT next FROM counters WHERE name = 'event')")

    private func nextPosition(after position: Int64) async throws -> Int64? {
        try await database.read { reader in
            try await reader.first(Self.following, [.integer(position)]) { $0.isNull(0) ? nil : $0.integer(0) } ?? nil
        }
    }

    private func checkPositions(_ report: inout Report) async throws {
        let (highest, numbers) = try await database.read { reader in
            (
                try await reader.first(Self.highest, []) { $0.integer(0) } ?? 0,
                try await reader.first(Self.numbersBeyond, []) { $0.integer(0) } ?? 0
            )
        }
        var following = try await nextPosition(after: .min)
        while let first = following {
            let last = first.addingReportingOverflow(Self.positionsAtOnce)
            let end = last.overflow ? Int64.max : last.partialValue
            let doubled = try await database.read { reader in
                try await reader.query(Self.doubled, [.integer(first), .integer(end)]) { $0.integer(0) }
            }
            for position in doubled { report.note("position \(position) was given to several events") }
            following = try await nextPosition(after: end)
        }
        // Asked after the snapshot: meanwhile it can only have grown.
        let next = try await database.engine.nextPosition()
        if highest >= next { report.note("an event has position \(highest), and \(next) was never given out") }
        if numbers > 0 { report.note("\(numbers) events have numbers that were never reserved") }
    }

    // MARK: - Events

    private static let pageOfEvents = Statement(
        "SELECT \(StoredEvent.columns), event_key FROM events WHERE event_nid > $1 ORDER BY event_nid LIMIT \(page)")
    private static let eventExists = Statement(
        """
        SELECT 1 FROM events WHERE event_nid = $1 UNION ALL SELECT 1 FROM purged_events WHERE event_nid = $1 LIMIT 1
        """)
    private static let stateExists = Statement("SELECT 1 FROM state_nodes WHERE room_nid = $1 AND state_nid = $2")
    private static let chainPlace = Statement("SELECT event_nid FROM chain_places WHERE chain_nid = $1 AND place = $2")
    private static let versions = Statement("SELECT room_nid, version FROM rooms")

    private func checkEvents(_ report: inout Report) async throws {
        let rooms = try await database.read { reader in
            try await reader.query(Self.versions, []) { (RoomNID($0.integer(0)), RoomVersion.named($0.text(1))) }
        }
        // A damaged index may bring a row twice.
        let versions = Dictionary(rooms) { $1 }
        var last: Int64 = 0
        var knownStates: Set<StateOfRoom> = []
        while true {
            let from = last
            let events = try await database.read { reader in
                try await reader.query(Self.pageOfEvents, [.integer(from)]) {
                    (try StoredEvent(row: $0), $0.blob(StoredEvent.columnCount))
                }
            }
            guard let end = events.last?.0.nid.rawValue else { return }
            last = end
            report.events += events.count
            for (event, key) in events {
                check(event, key: key, versions, &report)
                try await checkReferences(of: event, &knownStates, &report)
            }
        }
    }

    private struct StateOfRoom: Hashable {
        let room: RoomNID
        let state: StateNID
    }

    private func check(
        _ event: StoredEvent, key: [UInt8], _ versions: [RoomNID: RoomVersion?], _ report: inout Report
    ) {
        if key != StoredEvent.key(of: event.eventID) {
            report.note("event \(event.eventID) is filed under another key")
        }
        guard let version = versions[event.room] ?? nil else {
            report.note("event \(event.eventID) is in room \(event.room), which isn't there")
            return
        }
        // What came before this server was in the room is of the version that was claimed then.
        if event.flags.contains(.outlier), event.chain == nil {
            let isOfSome = RoomVersion.all.contains {
                (try? Event(receiving: event.json, version: $0))?.eventID == event.eventID
            }
            if isOfSome { return }
        }
        do {
            let parsed = try Event(receiving: event.json, version: version)
            if parsed.eventID != event.eventID {
                report.note("the bytes of \(event.eventID) are those of \(parsed.eventID)")
            }
        } catch {
            report.note("event \(event.eventID) can't be read: \(error)")
        }
    }

    private func checkReferences(
        of event: StoredEvent, _ knownStates: inout Set<StateOfRoom>, _ report: inout Report
    ) async throws {
        var referred = event.previous + event.auth
        if let replaced = event.replaces { referred.append(replaced) }
        let wanted = referred
        let (found, chain) = try await database.read { reader in
            let found = try await reader.queryEach(Self.eventExists, wanted.map { [$0.value] }) { index, _ in index }
            var chain: Int64?
            if let place = event.chain {
                chain = try await reader.first(Self.chainPlace, [.integer(place.chain), .integer(place.place)]) {
                    $0.integer(0)
                }
            }
            return (Set(found), chain)
        }
        for (index, nid) in referred.enumerated() where !found.contains(index) {
            report.note("event \(event.eventID) refers to event number \(nid), which isn't there")
        }
        if event.chain != nil, chain != event.nid.rawValue {
            report.note("event \(event.eventID) is not at its place of its chain")
        }
        guard let state = event.stateBefore, state.rawValue != 0 else { return }
        let pair = StateOfRoom(room: event.room, state: state)
        if knownStates.contains(pair) { return }
        let exists = try await database.read { reader in
            try await reader.first(Self.stateExists, [event.room.value, state.value]) { _ in true }
        }
        if exists == nil { report.note("the state \(state) before event \(event.eventID) isn't there") }
        knownStates.insert(pair)
    }

    // MARK: - Rooms

    private static let allRooms = Statement("SELECT room_nid FROM rooms ORDER BY room_nid")
    private static let room = Statement("SELECT \(RoomRecord.columns) FROM rooms WHERE room_nid = $1")
    private static let lastState = Statement(
        "SELECT state_nid FROM room_states WHERE room_nid = $1 ORDER BY position DESC LIMIT 1")
    private static let highestRow = Statement("SELECT max(state_nid) FROM state_nodes WHERE room_nid = $1")
    private static let deepest = Statement("SELECT max(order_depth) FROM events WHERE room_nid = $1")
    private static let members = Statement(
        "SELECT user_nid, membership, event_nid FROM memberships WHERE room_nid = $1")

    /// By room, because each of a large server's memberships would be one look into a large table.
    private static let membersWithoutEvent = Statement(
        """
        SELECT count(*) FROM memberships m WHERE m.room_nid = $1
            AND NOT EXISTS (SELECT 1 FROM events e WHERE e.event_nid = m.event_nid)
        """)

    /// What is stored of a room, as of one moment: between two looks it may have moved on.
    private struct Found: Sendable {
        let room: RoomRecord
        var lastState: Int64?
        var membersWithoutEvent: Int64
        var highestRow: Int64
        var deepest: Int64
        var tips: [StoredEvent]
        /// Why the state can't be read.
        var damage: DatabaseError?
        var entries: [StateEntry] = []
        var stateEvents: [StoredEvent] = []
        var members: [UserNID: EventNID]
        /// Those of them who have left.
        var left: Set<UserNID>
        /// The servers of those who are joined.
        var joined: [ServerName]
        var counted: [(server: ServerNID, joined: Int)]
        /// The servers that are said to be in it, while its members aren't known.
        var named: [ServerNID]
    }

    private func checkRooms(_ report: inout Report) async throws {
        let rooms = try await database.read { try await $0.query(Self.allRooms, []) { RoomNID($0.integer(0)) } }
        for nid in rooms {
            try await look("rows of room number \(nid)", &report) { report in
                guard let found = try await database.read({ try await self.find(nid, $0) }) else { return }
                report.rooms += 1
                var own = Report()
                check(found, &own)
                try await checkMembers(found, &own)
                for problem in own.problems { report.note("room \(found.room.roomID): \(problem)") }
            }
        }
    }

    private func find(_ nid: RoomNID, _ reader: any Reader) async throws -> Found? {
        guard let room = try await reader.first(Self.room, [nid.value], { try RoomRecord(row: $0) }) else { return nil }
        let members = try await reader.query(Self.members, [nid.value]) {
            (user: UserNID($0.integer(0)), membership: StoredMembership(rawValue: $0.integer(1)), event: $0.integer(2))
        }
        var found = Found(
            room: room, lastState: try await reader.first(Self.lastState, [nid.value]) { $0.integer(0) },
            membersWithoutEvent: try await reader.first(Self.membersWithoutEvent, [nid.value]) { $0.integer(0) } ?? 0,
            highestRow: try await reader.first(Self.highestRow, [nid.value]) { $0.integer(0) } ?? 0,
            deepest: try await reader.first(Self.deepest, [nid.value]) { $0.integer(0) } ?? 0,
            tips: try await database.events(room.extremities, reader),
            members: Dictionary(members.map { ($0.user, EventNID($0.event)) }) { $1 },
            left: Set(members.filter { $0.membership == .leave }.map(\.user)),
            joined: try await reader.query(Self.joined, [nid.value]) { UserID(unchecked: $0.text(0)).server },
            counted: try await database.servers(in: nid, reader),
            named: try await database.partialRoom(nid, reader)?.servers ?? [])
        do {
            found.entries = try await StateTree(rows: StateRows(), room: nid).entries(in: room.state, reader)
            found.stateEvents = try await database.events(found.entries.map(\.event), reader)
        } catch let error as DatabaseError { found.damage = error }
        return found
    }

    private func check(_ found: Found, _ report: inout Report) {
        let room = found.room
        // Of a room that this server was never in there is nothing but who was invited to it, or knocked.
        let isOutside = room.extremities.isEmpty && room.state.rawValue == 0 && found.lastState == nil
        if !isOutside, found.lastState != room.state.rawValue {
            report.note("the current state is not the last one that was noted")
        }
        if found.highestRow >= room.nextStateRow { report.note("state rows were made beyond the next free number") }
        if found.deepest != room.depth {
            report.note("the newest event is at depth \(found.deepest), not at \(room.depth)")
        }
        if found.tips.count != room.extremities.count || found.tips.contains(where: { $0.room != room.nid })
            || found.tips.isEmpty && !isOutside
        {
            report.note("its forward extremities aren't there")
        }
        if found.membersWithoutEvent > 0 { report.note("\(found.membersWithoutEvent) memberships without event") }
        if let damage = found.damage { report.note("its state can't be read: \(damage)") }
    }

    private func checkMembers(_ found: Found, _ report: inout Report) async throws {
        guard found.damage == nil else { return }
        let (entries, events) = (found.entries, found.stateEvents)
        if events.count != entries.count { report.note("events of its state are missing") }
        for (entry, event) in zip(entries, events) where event.stateKey != entry.key || event.room != found.room.nid {
            report.note("its state holds \(event.eventID) under another key or from another room")
        }
        let keys = try await database.stateKeys(entries.map(\.key))
        var expected: [UserNID: EventNID] = [:]
        for entry in entries {
            guard let key = keys[entry.key], key.type == "m.room.member", let user = UserID(key.key) else { continue }
            expected[try await database.number(ofUser: user)] = entry.event
        }
        var others: [EventNID] = []
        for user in Set(found.members.keys).union(expected.keys) where found.members[user] != expected[user] {
            // Until its members are known, the state doesn't say what those are who were in the room before.
            if found.room.partialJoin != nil, expected[user] == nil { continue }
            // Where the room was taken up anew by way of servers that know nothing of somebody, that one has left it.
            if found.left.contains(user), expected[user] == nil { continue }
            others.append(found.members[user] ?? EventNID(0))
        }
        // Invitations and knocks that came while this server was not in the room stand beside its state.
        let outside = try await database.events(others).filter { $0.flags.contains(.outlier) }
        if outside.count != others.count { report.note("its memberships don't follow from its state") }
        try await checkServers(found, &report)
    }

    private static let joined = Statement(
        """
        SELECT u.user_id FROM memberships m JOIN users u ON u.user_nid = m.user_nid WHERE m.room_nid = $1 AND m.membership = 1
        """)

    private func checkServers(_ found: Found, _ report: inout Report) async throws {
        let names = try await database.servers(found.counted.map(\.server) + found.named)
        // While the members aren't known, each server that is said to be in the room counts as if it had one more.
        let joined = found.joined + found.named.compactMap { names[$0] }
        let expected = Dictionary(joined.map { ($0, 1) }, uniquingKeysWith: +)
        let stored = Dictionary(found.counted.compactMap { entry in names[entry.server].map { ($0, entry.joined) } }) {
            $1
        }
        if stored != expected { report.note("its servers don't follow from its members") }
    }

    // MARK: - References of other tables

    private static let references: [(what: String, count: Statement)] = [
        (
            "devices without account",
            "devices d WHERE NOT EXISTS (SELECT 1 FROM accounts a WHERE a.user_nid = d.user_nid)"
        ),
        (
            "access tokens without device",
            """
            access_tokens t WHERE NOT EXISTS
            (SELECT 1 FROM devices d WHERE d.user_nid = t.user_nid AND d.device_id = t.device_id)
            """
        ),
        ("accounts without user", "accounts a WHERE NOT EXISTS (SELECT 1 FROM users u WHERE u.user_nid = a.user_nid)"),
        (
            "memberships without room",
            "memberships m WHERE NOT EXISTS (SELECT 1 FROM rooms r WHERE r.room_nid = m.room_nid)"
        ),
        ("receipts without room", "receipts x WHERE NOT EXISTS (SELECT 1 FROM rooms r WHERE r.room_nid = x.room_nid)"),
        (
            "aliases without room",
            "room_aliases x WHERE NOT EXISTS (SELECT 1 FROM rooms r WHERE r.room_nid = x.room_nid)"
        ),
        ("states without room", "room_states x WHERE NOT EXISTS (SELECT 1 FROM rooms r WHERE r.room_nid = x.room_nid)"),
    ].map { ($0.0, Statement("SELECT count(*) FROM \($0.1)")) }

    private func checkReferences(_ report: inout Report) async throws {
        for (what, statement) in Self.references {
            let count = try await database.read { try await $0.first(statement, []) { $0.integer(0) } ?? 0 }
            if count > 0 { report.note("\(count) \(what)") }
        }
    }
}
