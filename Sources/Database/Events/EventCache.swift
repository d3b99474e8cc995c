import Synchronization

/// The events last used, by their numbers. Entries change only in that a redaction takes effect; then they are dropped.
public final class EventCache: Sendable {
    private static let shards = 8
    private let shards: [Shard]

    /// The lock protects the entries; nothing is awaited while it is held.
    private final class Shard: Sendable {
        struct Entries {
            var events: BoundedCache<EventNID, StoredEvent>
            /// Events that were redacted lately: a read that began before may still bring them as they were.
            var redacted = BoundedCache<EventNID, Bool>(capacity: 2_000)
        }

        let entries: Mutex<Entries>
        init(capacity: Int) { entries = Mutex(Entries(events: BoundedCache(capacity: capacity))) }
    }

    /// - Parameter capacity: bytes.
    init(capacity: Int) {
        shards = (0..<Self.shards).map { _ in Shard(capacity: capacity / Self.shards) }
    }

    private func shard(_ nid: EventNID) -> Shard { shards[Int(nid.rawValue & Int64(Self.shards - 1))] }

    subscript(nid: EventNID) -> StoredEvent? { shard(nid).entries.withLock { $0.events[nid] } }

    /// Keeps events that are in the database.
    public func insert(_ event: StoredEvent) {
        shard(event.nid).entries.withLock { entries in
            if event.redactedBy == nil, entries.redacted[event.nid] != nil { return }
            entries.events.insert(event, for: event.nid, size: event.size)
        }
    }

    /// A redaction took effect on the event, here or on another node.
    func outdate(_ nid: EventNID) {
        shard(nid).entries.withLock { entries in
            entries.redacted.insert(true, for: nid, size: 1)
            entries.events.remove(nid)
        }
    }

    /// Nothing that was read before counts any more.
    func outdateAll() { for shard in shards { shard.entries.withLock { $0.events.removeAll() } } }
}
