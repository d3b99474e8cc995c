import Database
import Synchronization

/// Which member events clients that load them lazily have got (Client-Server API, "Lazy-loading room members"): those are
/// redundant, and not sent again.
///
/// In memory only, and no more than a saving: what is forgotten is sent once more. A client has got an answer when it comes back with
/// the token of it, or of a later one.
final class LazyMembers: Sendable {
    struct Client: Hashable, Sendable {
        let user: UserNID
        let deviceID: String
        let room: RoomNID
    }

    struct Sent: Sendable {
        let event: EventNID
        /// The position of the answer it was in.
        let upTo: Int64
    }

    /// Members remembered for a room and client at most.
    private static let most = 2_000

    /// The lock protects the cache; nothing is awaited while it is held.
    private let cache = Mutex(BoundedCache<Client, [UserNID: Sent]>(capacity: 400_000))

    /// The members that the client has got, if it comes with a token of this position.
    func known(to client: Client, at position: Int64) -> [UserNID: EventNID] {
        cache.withLock { $0[client] ?? [:] }.filter { $0.value.upTo <= position }.mapValues(\.event)
    }

    /// Notes what an answer has in it.
    ///
    /// - Parameter since: the position of the token with which the client came; nil for one that begins anew. What later answers had in
    ///   them it may not have got.
    func note(_ sent: [UserNID: Sent], for client: Client, since: Int64?) {
        cache.withLock { cache in
            var all = since.map { since in (cache[client] ?? [:]).filter { $0.value.upTo <= since } } ?? [:]
            // What was got before was got, also if it is sent once more.
            all.merge(sent) { $0.event == $1.event ? $0 : $1 }
            if all.count > Self.most { all = sent }
            if all.isEmpty { cache.remove(client) } else { cache.insert(all, for: client, size: 1 + all.count) }
        }
    }
}
