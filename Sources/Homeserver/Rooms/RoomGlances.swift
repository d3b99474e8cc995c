import Database
import Synchronization

/// What all members of a room are told alike, read once for all of those who are woken by the same message.
///
/// A value is kept by when the room changed last: as long as that is the same, whoever reads finds the same.
final class RoomGlances: Sendable {
    enum Kind: UInt8 {
        /// The newest events of the timeline.
        case timeline
        case hasGaps
        /// The current state at a position.
        case state
        /// The receipts between two positions.
        case receipts
    }

    private struct Key: Hashable {
        let room: RoomNID
        let asOf: Int64
        let kind: Kind
        let argument: Int64
    }

    /// The lock protects the cache; nothing is awaited while it is held.
    private let values = Mutex(BoundedCache<Key, any Sendable>(capacity: 4_000))

    /// - Parameters:
    ///   - asOf: when the room changed last, which must not be after what the reader sees; nil if that isn't known: then it is read.
    ///   - argument: what else the value depends on.
    func value<T: Sendable>(
        _ kind: Kind, of room: RoomNID, asOf: Int64?, _ argument: Int64 = 0, _ read: () async throws -> T
    ) async throws -> T {
        guard let asOf else { return try await read() }
        let key = Key(room: room, asOf: asOf, kind: kind, argument: argument)
        if let known = values.withLock({ $0[key] }) as? T { return known }
        let value = try await read()
        values.withLock { $0.insert(value, for: key, size: 1) }
        return value
    }
}
