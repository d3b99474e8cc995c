import Database
import MatrixCore

/// Which events another server may see (A21): as its members may, by the history visibility and the memberships at each event
/// (Client-Server API, "Room History Visibility"; Server-Server API, "Backfilling and retrieving missing events"). What it may not
/// see it gets redacted: it needs the graph.
struct ServerVisibility {
    let room: Room
    let server: ServerName
    let context: RoomContext
    private let reader: any Reader
    private let tree: StateTree
    private let visibilityKey: StateKeyNID?
    private var verdicts: [StateNID: Bool] = [:]
    /// Whether senders are the server's own.
    private var senders: [UserNID: Bool] = [:]

    init(_ context: RoomContext, room: Room, server: ServerName, reader: any Reader) async throws {
        self.context = context
        self.room = room
        self.server = server
        self.reader = reader
        tree = StateTree(rows: context.database.stateRows, room: room.nid)
        visibilityKey = try await context.database.existingNumber(ofStateKey: .historyVisibility)
    }

    /// The event as the server may see it, as JSON: most need not be looked into for that.
    mutating func shown(_ stored: StoredEvent) async throws -> [UInt8] {
        if try await allows(stored) { return try context.told(stored, room.version) }
        return try context.parse(stored, room.version).redacted().json
    }

    private mutating func allows(_ stored: StoredEvent) async throws -> Bool {
        // State is what rooms are made of, and its own it knows.
        if stored.stateKey != nil { return true }
        if try await isOwn(stored.sender) { return true }
        guard let before = stored.stateBefore else { return false }
        if let known = verdicts[before] { return known }
        let verdict = try await allows(before)
        verdicts[before] = verdict
        return verdict
    }

    private mutating func isOwn(_ sender: UserNID) async throws -> Bool {
        if let known = senders[sender] { return known }
        let isOwn = try await context.database.user(sender)?.server == server
        senders[sender] = isOwn
        return isOwn
    }

    private func allows(_ state: StateNID) async throws -> Bool {
        var visibility = HistoryVisibility.shared
        if let visibilityKey, let nid = try await tree.event(for: visibilityKey, in: state, reader),
            let stored = try await context.database.events([nid], reader).first
        {
            visibility = HistoryVisibility(event: try context.parse(stored, room.version))
        }
        switch visibility {
        case .shared, .worldReadable: return true
        case .joined, .invited: break
        }
        let memberships = try await context.memberships(of: server, in: state, of: room, reader)
        return memberships.contains(.join) || visibility == .invited && memberships.contains(.invite)
    }
}

extension RoomContext {
    /// An event as other servers are told it: without what a redaction took away.
    func told(_ stored: StoredEvent, _ version: RoomVersion) throws -> [UInt8] {
        stored.redactedBy == nil ? stored.json : try parse(stored, version).redacted().json
    }
}
