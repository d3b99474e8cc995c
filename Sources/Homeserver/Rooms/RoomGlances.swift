import Database
import Synchronization

/// What all members of a room are told alike, read once for all of those who are woken by the same message.
///
/// A value is kept by when the room changed last: as long as that is the same, whoever reads finds the same.
final class RoomGlances: Sendable {
    fileprivate enum Kind: UInt8 {
        case timeline, hasGaps, states, receipts, movers, joined, invited, isNamed, stickyUntil
    }

    fileprivate struct Key: Hashable {
        let room: RoomNID
        let asOf: Int64
        let kind: Kind
        let argument: Int64
    }

    /// The lock protects the cache; nothing is awaited while it is held.
    private let values = Mutex(BoundedCache<Key, any Sendable>(capacity: 8_000))
    private let database: Database

    init(database: Database) { self.database = database }

    /// - Parameter asOf: when the room changed last, found out before the reader's first question (``Activity/lastChanges(of:)``); nil if
    ///   that isn't known: then everything is read.
    func of(_ room: RoomNID, asOf: Int64?) -> RoomGlance {
        RoomGlance(glances: self, database: database, room: room, asOf: asOf)
    }

    fileprivate func value<T: Sendable>(_ key: Key, _ read: () async throws -> T) async throws -> T {
        if let known = values.withLock({ $0[key] }) as? T { return known }
        let value = try await read()
        values.withLock { $0.insert(value, for: key, size: 1) }
        return value
    }
}

/// A room as it is at a look.
struct RoomGlance: Sendable {
    fileprivate let glances: RoomGlances
    fileprivate let database: Database
    let room: RoomNID
    fileprivate let asOf: Int64?

    /// Rows of each kind that are kept: as many as happen between two looks of those who are there.
    private static let kept = 32

    private func value<T: Sendable>(
        _ kind: RoomGlances.Kind, _ argument: Int64 = 0, _ read: () async throws -> T
    ) async throws -> T {
        guard let asOf else { return try await read() }
        return try await glances.value(.init(room: room, asOf: asOf, kind: kind, argument: argument), read)
    }

    /// The numbers of the newest events of the timeline, newest first.
    func newest(_ limit: Int, _ reader: any Reader) async throws -> [EventNID] {
        try await value(.timeline, Int64(limit)) {
            try await database.timeline(
                of: room, from: .init(depth: .max, position: .max), backwards: true, limit: limit, reader)
        }
    }

    func hasGaps(_ reader: any Reader) async throws -> Bool {
        try await value(.hasGaps) { try await database.hasGaps(in: room, reader) }
    }

    /// What the room's current state was at a position; the empty state before the room was known.
    func state(at position: Int64, _ reader: any Reader) async throws -> StateNID {
        let states =
            asOf == nil
            ? nil
            : try await value(.states) {
                try await database.newestStates(of: room, limit: Self.kept, reader)
            }
        if let state = states?.rows.first(where: { $0.position <= position })?.state { return state }
        if let states, states.isWhole { return StateNID(0) }
        return try await database.state(of: room, at: position, reader)
    }

    /// The receipts that moved between two positions.
    func receipts(after: Int64, upTo: Int64, _ reader: any Reader) async throws -> [StoredReceipt] {
        let newest =
            asOf == nil
            ? nil
            : try await value(.receipts) {
                try await database.newestReceipts(in: room, limit: Self.kept, reader)
            }
        guard let newest, newest.goesBack(to: after) else {
            return try await database.receipts(in: room, after: after, upTo: upTo, reader)
        }
        return newest.rows.reversed().filter { $0.position > after && $0.position <= upTo }
    }

    /// Those whose member events are younger than a position.
    func movers(after: Int64, _ reader: any Reader) async throws -> [Database.Mover] {
        let newest =
            asOf == nil
            ? nil
            : try await value(.movers) {
                try await database.newestMovers(in: room, limit: Self.kept, reader)
            }
        guard let newest, newest.goesBack(to: after) else {
            return try await database.movers(in: room, after: after, reader)
        }
        return newest.rows.filter { $0.position > after }
    }

    /// How many are in the room.
    func joinedCount(_ reader: any Reader) async throws -> Int {
        try await value(.joined) { try await database.count(of: .join, in: room, reader) }
    }

    func invitedCount(_ reader: any Reader) async throws -> Int {
        try await value(.invited) { try await database.count(of: .invite, in: room, reader) }
    }

    /// Whether the room has a name or an alias to be called by in a state of it.
    func isNamed(in state: StateNID, _ find: () async throws -> Bool) async throws -> Bool {
        try await value(.isNamed, state.rawValue, find)
    }

    /// Whether an event of the room is sticky at a time.
    func mayHaveStickyEvents(at now: Int64, _ reader: any Reader) async throws -> Bool {
        guard asOf != nil else { return true }
        return try await value(.stickyUntil) { try await database.endOfStickiness(in: room, reader) } > now
    }
}
