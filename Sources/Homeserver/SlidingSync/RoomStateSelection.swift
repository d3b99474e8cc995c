import Database
import MatrixCore
import Synchronization

/// Finds the state that clients ask for by patterns, in rooms of any number of members.
///
/// State is a tree by numbers, so that a pattern such as “all of one type” would have to look at all of it. Therefore the part
/// without members, which is small as a rule, is kept in memory for each room, and follows the differences from state to state.
final class RoomStateSelection: Sendable {
    private struct NonMembers: Sendable {
        var state: StateNID
        var events: [StateKey: EventNID]
    }

    private let database: Database
    /// The lock protects the cache; nothing is awaited while it is held. Counted in events.
    private let cache = Mutex(BoundedCache<RoomNID, NonMembers>(capacity: 200_000))

    init(database: Database) { self.database = database }

    /// The state events that are asked for; members that are loaded lazily are not among them.
    func select(
        _ required: RequiredState, of room: RoomNID, at state: StateNID, _ reader: any Reader
    ) async throws -> [StateKey: EventNID] {
        let tree = StateTree(rows: database.stateRows, room: room)
        if required.matchesAllMembers {
            return try await named(try await tree.entries(in: state, reader)).filter { required.matches($0.key) }
        }
        var found: [StateKey: EventNID] = [:]
        if required.hasPatterns {
            found = try await nonMembers(of: room, at: state, tree, reader).filter { required.matches($0.key) }
        }
        let keys = required.namedKeys.filter { found[$0] == nil && required.matches($0) }
        for (key, number) in try await database.existingNumbers(ofStateKeys: Array(keys)) {
            if let event = try await tree.event(for: number, in: state, reader) { found[key] = event }
        }
        return found
    }

    /// The state without members.
    func nonMembers(of room: RoomNID, at state: StateNID, _ reader: any Reader) async throws -> [StateKey: EventNID] {
        try await nonMembers(of: room, at: state, StateTree(rows: database.stateRows, room: room), reader)
    }

    private func nonMembers(
        of room: RoomNID, at state: StateNID, _ tree: StateTree, _ reader: any Reader
    ) async throws -> [StateKey: EventNID] {
        let known = cache.withLock { $0[room] }
        if let known, known.state == state { return known.events }
        var now = NonMembers(state: state, events: known?.events ?? [:])
        if let known {
            let differences = try await tree.differences(from: known.state, to: state, reader)
            let names = try await database.stateKeys(differences.map(\.key))
            for difference in differences {
                if let name = names[difference.key], !Self.isMember(name) { now.events[name] = difference.new }
            }
        } else {
            now.events = try await named(try await tree.entries(in: state, reader)).filter { !Self.isMember($0.key) }
        }
        let found = now
        cache.withLock { $0.insert(found, for: room, size: 1 + found.events.count) }
        return found.events
    }

    private func named(_ entries: [StateEntry]) async throws -> [StateKey: EventNID] {
        let names = try await database.stateKeys(entries.map(\.key))
        var found: [StateKey: EventNID] = [:]
        for entry in entries { if let name = names[entry.key] { found[name] = entry.event } }
        return found
    }

    static func isMember(_ key: StateKey) -> Bool { ByteString(key.type) == RequiredState.member }
}
