import Synchronization

/// The events last used, by their numbers. Entries change only in that a redaction takes effect; then they are dropped.
public final class EventCache: Sendable {
    private static let shards = 8
    private let shards: [Shard]

    private final class Shard: Sendable {
        let cache: Mutex<BoundedCache<EventNID, StoredEvent>>
        init(capacity: Int) { cache = Mutex(BoundedCache(capacity: capacity)) }
    }

    /// - Parameter capacity: bytes.
    init(capacity: Int) {
        shards = (0..<Self.shards).map { _ in Shard(capacity: capacity / Self.shards) }
    }

    private func shard(_ nid: EventNID) -> Shard { shards[Int(nid.rawValue & Int64(Self.shards - 1))] }

    subscript(nid: EventNID) -> StoredEvent? { shard(nid).cache.withLock { $0[nid] } }

    /// Keeps events that are in the database.
    public func insert(_ event: StoredEvent) {
        shard(event.nid).cache.withLock { $0.insert(event, for: event.nid, size: event.size) }
    }

    public func remove(_ nid: EventNID) { shard(nid).cache.withLock { $0.remove(nid) } }
}
