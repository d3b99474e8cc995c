import Synchronization

/// Reads rows of state trees, and keeps the ones last used in memory.
public final class StateRows: Sendable {
    private struct Key: Hashable {
        let room: RoomNID
        let row: Int64
    }

    /// The lock protects the cache; nothing is awaited while it is held.
    private let cache: Mutex<BoundedCache<Key, StateRow>>

    /// - Parameter capacity: bytes that the cached rows may take, about.
    public init(capacity: Int = 8 << 20) {
        cache = Mutex(BoundedCache(capacity: capacity))
    }

    private static let read = Statement("SELECT nodes FROM state_nodes WHERE room_nid = $1 AND state_nid = $2")

    func row(_ room: RoomNID, _ row: Int64, _ reader: any Reader) async throws -> StateRow {
        let key = Key(room: room, row: row)
        if let known = cache.withLock({ $0[key] }) { return known }
        guard let bytes = try await reader.first(Self.read, [room.value, .integer(row)], { $0.blob(0) }) else {
            throw DatabaseError.corrupt("state row \(row) of room \(room) is missing")
        }
        let found = try StateRow(bytes: bytes)
        cache.withLock { $0.insert(found, for: key, size: 4 * bytes.count + 64) }
        return found
    }

    /// Keeps rows that have just been committed, and will be looked at next.
    func remember(_ room: RoomNID, _ rows: [Int64: StateRow]) {
        cache.withLock { cache in
            for (number, row) in rows {
                cache.insert(row, for: Key(room: room, row: number), size: 200 * row.nodes.count + 64)
            }
        }
    }
}
