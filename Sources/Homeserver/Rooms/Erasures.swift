import Database
import MatrixCore
import Synchronization

/// The users who left for good and wanted what they said to be erased (Client-Server API, `POST /account/deactivate`, `erase`):
/// who was not in the room with them then sees it as if it were redacted.
final class Erasures: Sendable {
    private let database: Database
    /// The lock protects the set; nothing is awaited while it is held.
    private let known: Mutex<Set<UserNID>>

    init(database: Database) async throws {
        self.database = database
        known = Mutex(try await database.erasedUsers())
    }

    func add(_ user: UserNID) { known.withLock { _ = $0.insert(user) } }

    private func erased() async throws -> Set<UserNID> {
        // Where other nodes write too, one of them may have erased somebody since.
        database.engine.isShared ? try await database.erasedUsers() : known.withLock { $0 }
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
        let member = try await database.existingNumbers(ofTypes: [memberType])[memberType]
        for event in concerned where event.stateKey == nil || event.type == member {
            var wasThere = false
            if let key { wasThere = try await wasJoined(key, at: event, reader) }
            if !wasThere { pruned.insert(event.nid) }
        }
        return pruned
    }

    private func key(of user: UserNID) async throws -> StateKeyNID? {
        guard let userID = try await database.users([user])[user] else { return nil }
        let key = StateKey.member(userID)
        return try await database.existingNumbers(ofStateKeys: [key])[key]
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
