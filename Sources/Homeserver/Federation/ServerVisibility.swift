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

    init(_ context: RoomContext, room: Room, server: ServerName, reader: any Reader) async throws {
        self.context = context
        self.room = room
        self.server = server
        self.reader = reader
        tree = StateTree(rows: context.database.stateRows, room: room.nid)
        visibilityKey = try await context.database.existingNumber(ofStateKey: .historyVisibility)
    }

    /// The event as the server may see it.
    mutating func shown(_ stored: StoredEvent) async throws -> Event {
        let event = try context.parse(stored, room.version)
        if stored.redactedBy != nil { return event.redacted() }
        return try await allows(stored, event) ? event : event.redacted()
    }

    private mutating func allows(_ stored: StoredEvent, _ event: Event) async throws -> Bool {
        // Its own it knows, and state is what rooms are made of.
        if event.sender.server == server || event.isState { return true }
        guard let before = stored.stateBefore else { return false }
        if let known = verdicts[before] { return known }
        let verdict = try await allows(before)
        verdicts[before] = verdict
        return verdict
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
