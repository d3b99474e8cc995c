import Database
import Logging
import MatrixCore

/// Fills tables with what was stored before there were such tables: in the background, in batches, by one node at a time;
/// after a restart it goes on where it was.
struct BackgroundFilling: Sendable {
    let rooms: RoomRegistry
    let node: String
    /// Under this name the database knows how far it has come.
    let name: String
    /// Writes what belongs to the rows behind a number, and returns the number of the last; nil if there are none.
    let fill: @Sendable (_ after: Int64, _ write: inout Write) async throws -> Int64?

    private static let batch = 200
    private static let leaseTime: Int64 = 60_000

    enum Outcome { case more, finished, elsewhere }

    private func lease() async throws -> Lease? {
        try await rooms.database.lease(
            "migration \(name)", holder: node, now: rooms.context.surroundings.now(), duration: Self.leaseTime)
    }

    /// Does one batch.
    func step() async throws -> Outcome {
        let database = rooms.database
        guard let cursor = try await database.backgroundMigration(name) else { return .finished }
        guard let lease = try await lease() else { return .elsewhere }
        var write = Write()
        write.require(lease)
        let last = try await fill(cursor, &write)
        if let last {
            write.advanceBackgroundMigration(name, to: last)
        } else {
            write.finishBackgroundMigration(name)
            write.release(lease)
        }
        try await database.write(write)
        return last == nil ? .finished : .more
    }

    /// Does all of it, or as much as is possible until the task is cancelled; somebody else may go on at once then.
    ///
    /// - Returns: whether nothing is left. Otherwise another node is at it, or one that is gone was within the last minute, or the
    ///   task was cancelled.
    @discardableResult
    func run() async throws -> Bool {
        while !Task.isCancelled {
            switch try await step() {
            case .more: continue
            case .finished: return true
            case .elsewhere: return false
            }
        }
        if let lease = try await lease() {
            var write = Write()
            write.release(lease)
            try await rooms.database.write(write)
        }
        return false
    }

    /// Does all that there are, each as soon as nobody else is at it, until the task is cancelled. One that fails goes on at the next
    /// start, and doesn't hold up the others.
    static func runAll(_ fillings: [BackgroundFilling], _ surroundings: Surroundings, _ logger: Logger) async {
        var left = fillings
        while !left.isEmpty {
            var elsewhere: [BackgroundFilling] = []
            for filling in left {
                do {
                    if try await !filling.run() { elsewhere.append(filling) }
                } catch {
                    logger.error(
                        "a migration in the background failed; the next start goes on",
                        metadata: ["migration": "\(filling.name)", "reason": "\(error)"])
                }
            }
            left = elsewhere
            if left.isEmpty || Task.isCancelled { return }
            await surroundings.sleep(leaseTime / 2)
        }
    }

    /// All there are.
    static func all(rooms: RoomRegistry, node: String) -> [BackgroundFilling] {
        [
            .relations(rooms, node), .userWords(rooms, node), .openRooms(rooms, node), .searchQueue(rooms, node),
            .restoredDevices(rooms, node),
        ]
    }

    /// Whose devices other servers have to ask for again, because they may know them as they were after the backup that was restored.
    /// They ask because the update names none before it; each takes as many at a time as it likes.
    static func restoredDevices(_ rooms: RoomRegistry, _ node: String) -> BackgroundFilling {
        BackgroundFilling(rooms: rooms, node: node, name: "restored devices") { cursor, write in
            let database = rooms.database
            let own = try await database.number(ofServer: rooms.context.serverName)
            let accounts = try await database.accountNames(after: cursor, limit: batch)
            let concerned = try await database.read { reader in
                var concerned: [UserNID] = []
                for account in accounts
                where try await database.servers(sharingRoomsWith: account.nid, reader).contains(where: { $0 != own }) {
                    concerned.append(account.nid)
                }
                return concerned
            }
            for user in concerned { write.changeDeviceList(of: user) }
            return accounts.last?.nid.rawValue
        }
    }

    /// Relations of events (schema 2).
    static func relations(_ rooms: RoomRegistry, _ node: String) -> BackgroundFilling {
        BackgroundFilling(rooms: rooms, node: node, name: "relations") { cursor, write in
            let events = try await rooms.database.events(after: cursor, limit: batch)
            for stored in events where stored.redactedBy == nil && stored.flags.isDisjoint(with: .hidden) {
                let version = try await rooms.room(stored.room).version
                guard let event = try? rooms.context.parse(stored, version),
                    let (parent, type) = RoomDraft.relation(of: event)
                else { continue }
                write.relate(stored, to: parent, type: type)
                if let known = try await rooms.database.event(parent) { write.topics.append(.event(known.nid)) }
            }
            return events.last?.nid.rawValue
        }
    }

    /// The words of users' names (schema 3).
    static func userWords(_ rooms: RoomRegistry, _ node: String) -> BackgroundFilling {
        BackgroundFilling(rooms: rooms, node: node, name: "user words") { cursor, write in
            let accounts = try await rooms.database.accountNames(after: cursor, limit: batch)
            for account in accounts {
                write.putUserWords(
                    UserDirectoryService.words(account.userID, displayName: account.displayName), of: account.nid)
            }
            return accounts.last?.nid.rawValue
        }
    }

    /// Rooms that everybody may enter or look into (schema 3).
    static func openRooms(_ rooms: RoomRegistry, _ node: String) -> BackgroundFilling {
        BackgroundFilling(rooms: rooms, node: node, name: "open rooms") { cursor, _ in
            let found = try await rooms.database.rooms(after: cursor, limit: batch)
            for nid in found {
                let room = try await rooms.room(nid)
                // At the room's own queue, so that it can't undo what is changed at the same time.
                try await rooms.perform(in: room) { draft in
                    let isOpen = try await draft.isOpen()
                    draft.write.setOpen(isOpen, nid)
                }
            }
            return found.last?.rawValue
        }
    }

    /// Events that are found by words (schema 3).
    static func searchQueue(_ rooms: RoomRegistry, _ node: String) -> BackgroundFilling {
        BackgroundFilling(rooms: rooms, node: node, name: "search queue") { cursor, write in
            let events = try await rooms.database.events(after: cursor, limit: batch)
            for stored in events where stored.redactedBy == nil && stored.flags.isDisjoint(with: .hidden) {
                let version = try await rooms.room(stored.room).version
                guard let words = try? rooms.context.searchWords(of: stored, version), !words.isEmpty else { continue }
                write.enqueueForSearch(stored.nid, in: stored.room)
            }
            return events.last?.nid.rawValue
        }
    }
}
