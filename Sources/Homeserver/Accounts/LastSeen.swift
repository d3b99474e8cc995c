import Database
import Synchronization

/// Notes when and from where devices were seen last: each of them once in a while, because nobody needs to know more, and each
/// note is a write.
public final class LastSeen: Sendable {
    private struct Key: Hashable {
        let user: UserNID
        let device: String
    }

    private struct Note: Sendable {
        let time: Int64
        let address: String
    }

    private let database: Database
    private let surroundings: Surroundings
    /// The lock protects the table; nothing is awaited while it is held.
    private let notes = Mutex(BoundedCache<Key, Note>(capacity: 50_000))

    /// An hour, in milliseconds.
    private static let interval: Int64 = 3_600_000

    init(database: Database, surroundings: Surroundings) {
        self.database = database
        self.surroundings = surroundings
    }

    /// Whether it is to be noted that a device was there.
    ///
    /// - Parameter address: without the port.
    public func isDue(_ requester: Requester, address: String) -> Bool {
        guard !requester.deviceID.isEmpty, requester.appservice == nil else { return false }
        let now = surroundings.now()
        let key = Key(user: requester.nid, device: requester.deviceID)
        return notes.withLock { notes in
            notes[key].map { now - $0.time >= Self.interval || $0.address != address } ?? true
        }
    }

    /// Notes it, if that is due.
    public func note(_ requester: Requester, address: String, userAgent: String?) async throws {
        guard isDue(requester, address: address) else { return }
        let now = surroundings.now()
        notes.withLock {
            $0.insert(
                Note(time: now, address: address), for: Key(user: requester.nid, device: requester.deviceID), size: 1)
        }
        var write = Write()
        write.noteDevice(
            requester.deviceID, of: requester.nid, seenAt: now, address: address,
            userAgent: userAgent.map { $0.shortened(to: 200) })
        try await database.write(write)
    }
}
