import Database
import Synchronization

/// What all members of a room are told alike, read once for all of those who are woken by the same message.
///
/// A value is kept by when the room changed last: as long as that is the same, whoever reads finds the same.
final class RoomGlances: Sendable {
    fileprivate enum Kind: UInt8 {
        case timeline, hasGaps, states, receipts, movers, joined, invited, stickyUntil
    }

    fileprivate struct Key: Hashable {
        let room: RoomNID
        let asOf: Int64
        let kind: Kind
        let argument: Int64
    }

    /// The lock protects the cache; nothing is awaited while it is held.
    private let values = Mutex(BoundedCache<Key, any Sendable>(capacity: 8_000))
    private let looks = SingleFlight<Key>()
    private let database: Database

    init(database: Database) { self.database = database }

    /// - Parameter asOf: when the room changed last, found out before the reader's first question (``Activity/lastChanges(of:)``); nil if
    ///   that isn't known: then everything is read.
    func of(_ room: RoomNID, asOf: Int64?) -> RoomGlance {
        RoomGlance(glances: self, database: database, room: room, asOf: asOf)
    }

    fileprivate func value<T: Sendable>(_ key: Key, _ read: () async throws -> T) async throws -> T {
        try await looks.value(key) {
            values.withLock { $0[key] } as? T
        } find: {
            let value = try await read()
            values.withLock { $0.insert(value, for: key, size: 1) }
            return value
        }
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

    /// What is kept; read where it isn't known when the room changed.
    private func value<T: Sendable>(
        _ kind: RoomGlances.Kind, _ reader: any Reader, argument: Int64 = 0, isSmall: Bool = true,
        _ read: (any Reader) async throws -> T
    ) async throws -> T {
        guard let asOf else { return try await read(reader) }
        return try await glances.value(.init(room: room, asOf: asOf, kind: kind, argument: argument)) {
            isSmall ? try await database.readOnce(read) : try await database.read(read)
        }
    }

    /// The newest rows of a kind, where it is known when the room changed.
    private func rows<Row>(
        _ kind: RoomGlances.Kind, _ reader: any Reader,
        _ read: (any Reader) async throws -> NewestRows<Row>
    ) async throws -> NewestRows<Row>? {
        asOf == nil ? nil : try await value(kind, reader, read)
    }

    /// The numbers of the newest events of the timeline, newest first.
    func newest(_ limit: Int, _ reader: any Reader) async throws -> [EventNID] {
        try await value(.timeline, reader, argument: Int64(limit)) {
            try await database.timeline(
                of: room, from: .init(depth: .max, position: .max), backwards: true, limit: limit, $0)
        }
    }

    func hasGaps(_ reader: any Reader) async throws -> Bool {
        try await value(.hasGaps, reader) { try await database.hasGaps(in: room, $0) }
    }

    /// What the room's current state was at a position; the empty state before the room was known.
    func state(at position: Int64, _ reader: any Reader) async throws -> StateNID {
        let states = try await rows(.states, reader) {
            try await database.newestStates(of: room, limit: Self.kept, $0)
        }
        if let state = states?.rows.first(where: { $0.position <= position })?.state { return state }
        if let states, states.isWhole { return StateNID(0) }
        return try await database.state(of: room, at: position, reader)
    }

    /// The receipts that moved between two positions.
    func receipts(after: Int64, upTo: Int64, _ reader: any Reader) async throws -> [StoredReceipt] {
        let newest = try await rows(.receipts, reader) {
            try await database.newestReceipts(in: room, limit: Self.kept, $0)
        }
        guard let newest, newest.goesBack(to: after) else {
            return try await database.receipts(in: room, after: after, upTo: upTo, reader)
        }
        return newest.rows.reversed().filter { $0.position > after && $0.position <= upTo }
    }

    /// Those whose member events are younger than a position.
    func movers(after: Int64, _ reader: any Reader) async throws -> [Database.Mover] {
        let newest = try await rows(.movers, reader) {
            try await database.newestMovers(in: room, limit: Self.kept, $0)
        }
        guard let newest, newest.goesBack(to: after) else {
            return try await database.movers(in: room, after: after, reader)
        }
        return newest.rows.filter { $0.position > after }
    }

    /// How many are in the room.
    func joinedCount(_ reader: any Reader) async throws -> Int {
        try await value(.joined, reader, isSmall: false) { try await database.count(of: .join, in: room, $0) }
    }

    func invitedCount(_ reader: any Reader) async throws -> Int {
        try await value(.invited, reader, isSmall: false) { try await database.count(of: .invite, in: room, $0) }
    }

    /// Whether an event of the room is sticky at a time.
    func mayHaveStickyEvents(at now: Int64, _ reader: any Reader) async throws -> Bool {
        guard asOf != nil else { return true }
        return try await value(.stickyUntil, reader) { try await database.endOfStickiness(in: room, $0) } > now
    }
}
