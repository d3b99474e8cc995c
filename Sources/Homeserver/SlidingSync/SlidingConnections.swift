import Database
import MatrixCore
import Synchronization

/// The connections of sliding sync: kept in the database, so that they survive restarts and any node can go on with them, and in
/// memory what was used last.
final class SlidingConnections: Sendable {
    private let database: Database
    private let surroundings: Surroundings

    /// Connections of a device; beyond it the one unused for longest ends.
    static let mostOfDevice = 12
    /// How long a connection that nobody uses is kept, in milliseconds: 30 days.
    static let longestUnused: Int64 = 30 * 86_400_000

    private struct Known: Sendable {
        var stored: StoredSlidingConnection
        var certain: [RoomNID: SentRoom]
        var pending: [RoomNID: SentRoom]
        var configs: SlidingConfigs
        var quiet: [RoomNID: SlidingConnection.Quiet]
    }

    /// The lock protects the cache; nothing is awaited while it is held. Counted in rooms.
    private let cache = Mutex(BoundedCache<Int64, Known>(capacity: 300_000))

    init(database: Database, surroundings: Surroundings) {
        self.database = database
        self.surroundings = surroundings
    }

    /// That of the connection's position is not known, or not any more (MSC4186, "Connections").
    static let unknown = MatrixError(
        .unknownPosition, "This position is not known, or has expired; begin a new connection without one.")

    // MARK: - Reading

    /// The connection that a token is of.
    ///
    /// - Throws: `M_UNKNOWN_POS` if it is not one of this device's, or not its last or last but one position.
    func connection(_ token: SlidingToken, of requester: Requester) async throws -> SlidingConnection {
        var known = cache.withLock { $0[token.connection] }
        // What belongs to a device is asked for with the device; another node may have gone on with it.
        let stored = try await database.read { reader in
            try await self.database.slidingConnection(
                token.connection, of: requester.nid, deviceID: requester.deviceID, reader)
        }
        guard let stored, token.generation == stored.generation || token.generation == stored.pending,
            token.generation != 0
        else { throw Self.unknown }
        if known?.stored.generation != stored.generation || known?.stored.pending != stored.pending {
            let (certain, pending) = try await database.read { reader in
                try await self.database.slidingRooms(of: stored.nid, reader)
            }
            known = Known(
                stored: stored, certain: certain, pending: pending, configs: try SlidingConfigs(stored: stored.configs),
                quiet: [:])
        }
        guard let known else { throw Self.unknown }
        let confirms = token.generation == stored.pending
        return SlidingConnection(
            stored: stored, confirmsPending: confirms,
            rooms: confirms ? known.certain.merging(known.pending) { $1 } : known.certain, configs: known.configs,
            quiet: known.quiet)
    }

    /// Remembers, in memory alone, what holds nothing new.
    func note(_ quiet: [RoomNID: SlidingConnection.Quiet], of connection: SlidingConnection) {
        guard let stored = connection.stored else { return }
        cache.withLock { cache in
            guard var known = cache[stored.nid], known.stored.generation == stored.generation,
                known.stored.pending == stored.pending
            else { return }
            known.quiet = quiet
            cache.insert(known, for: stored.nid, size: known.certain.count + known.pending.count + quiet.count + 10)
        }
    }

    // MARK: - Writing

    /// Whether a connection has to be written although nothing was told: it would be taken for unused else.
    func isDue(_ connection: SlidingConnection) -> Bool {
        guard let stored = connection.stored else { return true }
        return surroundings.now() - stored.usedAt > Self.longestUnused / 30
    }

    /// Keeps what an answer tells, until the client comes back with the position behind it.
    ///
    /// - Returns: the connection's number and that position.
    /// - Throws: ``DatabaseError/conflict(_:)`` if another request on the connection was faster.
    func move(
        _ connection: SlidingConnection, named connID: String, telling news: [RoomNID: SentRoom],
        by requester: Requester
    ) async throws -> (connection: Int64, generation: Int64) {
        let now = surroundings.now()
        let used = Set(connection.rooms.values.map(\.config)).union(news.values.map(\.config))
        let configs = connection.configs.encoded(using: used)
        guard configs.count <= SlidingConfigs.mostBytes else { throw Self.unknown }
        let before = connection.stored
        let after = StoredSlidingConnection(
            nid: before?.nid ?? number(), connID: before?.connID ?? connID,
            generation: before.map { connection.confirmsPending ? $0.pending : $0.generation } ?? number(),
            pending: number(), configs: configs, usedAt: now)
        var write = Write()
        if let before {
            write.move(after, from: before, confirms: connection.confirmsPending)
        } else {
            write.begin(
                after, of: requester.nid, deviceID: requester.deviceID, most: Self.mostOfDevice,
                unusedSince: now - Self.longestUnused)
        }
        for (room, sent) in news.sorted(by: { $0.key < $1.key }) { write.note(sent, of: room, on: after.nid) }
        try await database.write(write)
        let known = Known(
            stored: after, certain: connection.rooms, pending: news, configs: connection.configs,
            quiet: connection.quiet.filter { news[$0.key] == nil })
        cache.withLock {
            $0.insert(known, for: after.nid, size: known.certain.count + news.count + known.quiet.count + 10)
        }
        return (after.nid, after.pending)
    }

    /// A number that nobody has, above 0.
    private func number() -> Int64 {
        let bytes = surroundings.randomBytes(8)
        return max(1, Int64(bitPattern: bytes.reduce(UInt64(0)) { $0 << 8 | UInt64($1) } >> 1))
    }
}
