import Database
import MatrixCore
import Synchronization

/// The users who left for good and wanted what they said to be erased (Client-Server API, `POST /account/deactivate`, `erase`):
/// who was not in the room with them then sees it as if it were redacted.
final class Erasures: Sendable {
    private let database: Database

    private struct Known {
        var users: Set<UserNID>
        /// Goes up with each commit after which somebody else may be erased.
        var generation = 0
        var asOf = 0
    }

    /// The lock protects the set; nothing is awaited while it is held.
    private let known: Mutex<Known>

    init(database: Database) async throws {
        self.database = database
        known = Mutex(Known(users: try await database.erasedUsers()))
    }

    /// Whoever erases somebody says that anything may have changed: it is rare, and what all nodes have in memory holds what was
    /// said.
    func outdate(_ topics: [Topic]) {
        guard topics.contains(.everything) else { return }
        known.withLock { $0.generation += 1 }
    }

    private func erased() async throws -> Set<UserNID> {
        let (users, generation, isCurrent) = known.withLock { ($0.users, $0.generation, $0.asOf == $0.generation) }
        if isCurrent { return users }
        let read = try await database.erasedUsers()
        known.withLock { known in
            guard known.asOf < generation else { return }
            known.users = read
            known.asOf = generation
        }
        return read
    }

    /// Which of the events the user sees pruned: messages, and the name and picture of memberships. What else is state belongs to the
    /// room, and stays.
    func pruned(
        _ events: some Sequence<StoredEvent>, for user: UserNID, _ reader: any Reader
    ) async throws -> Set<EventNID> {
        let erased = try await erased()
        if erased.isEmpty { return [] }
        var pruned: Set<EventNID> = []
        let concerned = events.filter { erased.contains($0.sender) && $0.sender != user }
        if concerned.isEmpty { return [] }
        let key = try await key(of: user)
        let memberType = EventType("m.room.member")
        let member = try await database.existingNumber(ofType: memberType)
        for event in concerned where event.stateKey == nil || event.type == member {
            var wasThere = false
            if let key { wasThere = try await wasJoined(key, at: event, reader) }
            if !wasThere { pruned.insert(event.nid) }
        }
        return pruned
    }

    private func key(of user: UserNID) async throws -> StateKeyNID? {
        guard let userID = try await database.user(user) else { return nil }
        let key = StateKey.member(userID)
        return try await database.existingNumber(ofStateKey: key)
    }

    private func wasJoined(_ key: StateKeyNID, at event: StoredEvent, _ reader: any Reader) async throws -> Bool {
        guard let state = event.stateBefore else { return false }
        let tree = StateTree(rows: database.stateRows, room: event.room)
        guard let nid = try await tree.event(for: key, in: state, reader),
            let member = try await database.events([nid], reader).first,
            let root = try? JSONDocument(parsing: member.json).root
        else { return false }
        return Membership(root["content"]?["membership"]) == .join
    }
}
