import Database
import MatrixCore
import Synchronization

/// The rooms in use on this node, and the way into them.
public final class RoomRegistry: Sendable {
    let context: RoomContext
    var database: Database { context.database }

    private struct Active {
        var byID = BoundedCache<RoomID, Room>(capacity: 20_000)
        var byNumber = BoundedCache<RoomNID, Room>(capacity: 20_000)
    }

    /// The lock protects the tables; nothing is awaited while it is held. A room that drops out while it is in use may be
    /// loaded a second time: then the versions that each write compares keep the two from contradicting each other.
    private let active = Mutex(Active())

    init(context: RoomContext) { self.context = context }

    /// A room by its ID; nil if this server doesn't know it.
    func room(_ roomID: RoomID) async throws -> Room? {
        if let room = active.withLock({ $0.byID[roomID] }) { return try await upToDate(room) }
        return try await database.room(roomID).map { try remember($0) }
    }

    func room(_ nid: RoomNID) async throws -> Room {
        if let room = active.withLock({ $0.byNumber[nid] }) { return try await upToDate(room) }
        guard let record = try await database.room(nid) else { throw DatabaseError.corrupt("room \(nid) is missing") }
        return try remember(record)
    }

    /// Other nodes have written into rooms: what this one remembers of them is read anew when they are used next.
    func outdate(_ topics: [Topic]) {
        let concerned: [Room] = active.withLock { active in
            if topics.contains(.everything) {
                active = Active()
                return []
            }
            return topics.compactMap { topic in
                guard case .room(let nid) = topic else { return nil }
                return active.byNumber[nid]
            }
        }
        for room in concerned { room.outdate() }
    }

    private func upToDate(_ room: Room) async throws -> Room {
        guard let changes = room.unknownChanges else { return room }
        if let record = try await database.room(room.nid) { room.refreshed(record, changes: changes) }
        return room
    }

    /// Where other nodes write, too, a job may not even be refused by what this one happens to remember: what was acknowledged
    /// there before the job was asked for here counts.
    private func refresh(_ room: Room) async throws {
        guard database.engine.isShared else { return }
        let changes = room.unknownChanges ?? 0
        if let record = try await database.room(room.nid) { room.refreshed(record, changes: changes) }
    }

    private func remember(_ record: RoomRecord) throws -> Room {
        guard let version = RoomVersion.named(record.version) else {
            throw DatabaseError.corrupt("room \(record.roomID) has the unknown version \(record.version)")
        }
        return active.withLock { active in
            if let room = active.byNumber[record.nid] { return room }
            let room = Room(record: record, version: version)
            active.byID.insert(room, for: record.roomID, size: 1)
            active.byNumber.insert(room, for: record.nid, size: 1)
            return room
        }
    }

    /// Drops a room that is being deleted from memory: nobody finds it any more.
    func forget(_ room: Room) {
        active.withLock { active in
            active.byID.remove(room.roomID)
            active.byNumber.remove(room.nid)
        }
    }

    // MARK: - Writing

    /// Does something in a room: in order with all else that is done there, and durable when it returns.
    func perform<T: Sendable>(
        in room: Room, _ body: @escaping @Sendable (inout RoomDraft) async throws -> T
    ) async throws -> T {
        let result = Mutex<T?>(nil)
        let job = RoomJob { draft in
            let value = try await body(&draft)
            result.withLock { $0 = value }
        }
        if try await room.enter(job) == .lead { await lead(room, job) }
        if let failure = job.failure { throw failure }
        return result.withLock { $0! }
    }

    /// Does the job and those that wait, in one write.
    private func lead(_ room: Room, _ own: RoomJob) async {
        let others = room.takeWaiting()
        await carryOut([own] + others, in: room)
        room.leave()
        for job in others { job.continuation?.resume(returning: .done) }
    }

    /// How often a batch is built anew when somebody else keeps moving the room.
    /// Against a node that writes without a pause about every tenth try succeeds; some milliseconds each.
    private static let attempts = 1_000

    private func carryOut(_ jobs: [RoomJob], in room: Room) async {
        for attempt in 0..<Self.attempts {
            for job in jobs { job.failure = nil }
            do {
                if attempt == 0 { try await refresh(room) }
                guard var draft = try await build(jobs, in: room) else { return }
                try await commit(&draft)
                room.moved(to: draft.record)
                return
            } catch DatabaseError.conflict {
                // Another node was faster.
                do {
                    if let record = try await database.room(room.nid) { room.moved(to: record) }
                } catch {
                    return fail(jobs, error)
                }
            } catch {
                return fail(jobs, error)
            }
        }
        fail(jobs, DatabaseError.conflict("room \(room.roomID) moves on too fast"))
    }

    private func fail(_ jobs: [RoomJob], _ error: any Error) {
        for job in jobs where job.failure == nil { job.failure = error }
    }

    /// Runs the jobs one upon the other; nil if there is nothing to write.
    private func build(_ jobs: [RoomJob], in room: Room) async throws -> RoomDraft? {
        let record = room.record
        return try await readUnchecked { reader in
            var draft = try await RoomDraft(
                record, isNew: false, version: room.version, context: self.context, reader: reader)
            for job in jobs {
                let untouched = draft
                do {
                    try await job.run(&draft)
                } catch {
                    draft = untouched
                    job.failure = error
                }
            }
            return draft.isEmpty ? nil : draft
        }
    }

    /// Reads, and hands out a draft whose reader is not used any more.
    func readUnchecked(_ body: (any Reader) async throws -> RoomDraft?) async throws -> RoomDraft? {
        var draft: RoomDraft?
        try await database.read { reader in draft = try await body(reader) }
        return draft
    }

    /// Writes a draft; when this returns it is durable and visible.
    func commit(_ draft: inout RoomDraft) async throws {
        var write = draft.write
        let room = draft.record.nid
        let firstOwn = write.positions
        let positions = draft.added.map { _ in write.takePosition() }
        let bump = draft.added.lastIndex { RoomFacts.bumpingTypes.contains(EventType($0.parsed.type)) }
        let newest = positions.last ?? .null
        if let before = draft.before {
            write.update(draft.record, readAs: before, newest: newest, bump: bump.map { positions[$0] } ?? .null)
        } else {
            write.insert(draft.record, newest: newest, bump: bump.map { positions[$0] } ?? newest)
        }
        for (added, position) in zip(draft.added, positions) {
            write.insert(added.event, position: position)
            for (user, outcome) in added.notifications.exceptions {
                write.notify(
                    user, of: added.event, position: position, thread: added.notifications.thread, outcome)
            }
            if let until = added.stickyUntil {
                write.stick(
                    added.event.nid, in: room, position: position, until: until, now: context.surroundings.now())
            }
            if let change = added.stateChange {
                write.insert(change, room: room)
                write.setState(change.state, of: room, from: position)
            }
            if let change = added.membership {
                write.setMembership(
                    change.membership, of: change.user, in: room, event: added.event.nid, position: position,
                    ending: change.ending)
                if change.joined != 0 { write.countJoined(change.joined, of: change.server, in: room) }
            }
        }
        write.insert(draft.chains)
        write.topics.append(.room(room))
        for nid in draft.outdated { write.topics.append(.event(nid)) }
        let first = try await database.write(write).firstPosition + Int64(firstOwn)
        for (offset, added) in draft.added.enumerated() {
            database.storedEvents.insert(added.event.at(position: first + Int64(offset)))
        }
        if !draft.added.isEmpty {
            draft.moveFacts(newest: first + Int64(draft.added.count) - 1, bump: bump.map { first + Int64($0) })
        }
        draft.committed()
    }

    /// Makes a room out of a draft that begins with its create event.
    func make(_ draft: inout RoomDraft) async throws -> Room {
        try await commit(&draft)
        return try remember(draft.record)
    }
}
