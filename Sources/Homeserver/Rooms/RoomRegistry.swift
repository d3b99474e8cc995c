import Database
import MatrixCore
import Synchronization

/// The rooms in use on this node, and the way into them.
public final class RoomRegistry: Sendable {
    let context: RoomContext
    let policies: PolicyServers
    private let typing: Typing
    var database: Database { context.database }

    private struct Active {
        var byID = BoundedCache<RoomID, Room>(capacity: 20_000)
        var byNumber = BoundedCache<RoomNID, Room>(capacity: 20_000)
    }

    /// The lock protects the tables; nothing is awaited while it is held. A room that drops out while it is in use may be
    /// loaded a second time: then the versions that each write compares keep the two from contradicting each other.
    private let active = Mutex(Active())

    init(context: RoomContext, policies: PolicyServers, typing: Typing) {
        self.context = context
        self.policies = policies
        self.typing = typing
    }

    /// A room by its ID; nil if this server doesn't know it.
    func room(_ roomID: RoomID) async throws -> Room? {
        let known = active.withLock { active in
            // Both tables or neither: what is told of a room is told by its number.
            active.byID[roomID].flatMap { active.byNumber[$0.nid] === $0 ? $0 : nil }
        }
        if let known { return try await upToDate(known) }
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

    /// A room that is in use.
    func inUse(_ nid: RoomNID) -> Room? { active.withLock { $0.byNumber[nid] } }

    private func upToDate(_ room: Room) async throws -> Room {
        guard let changes = room.unknownChanges else { return room }
        if let record = try await database.room(room.nid) { room.refreshed(record, changes: changes) }
        return room
    }

    /// Where other nodes write, too, a job may not even be refused by what this one happens to remember: what was acknowledged
    /// there before the job was asked for here counts.
    private func refresh(_ room: Room) async throws {
        guard database.engine.isShared else { return }
        let solitude = database.engine.solitude
        if let solitude, room.isKnown(under: solitude) { return }
        let changes = room.unknownChanges ?? 0
        if let record = try await database.room(room.nid) {
            room.refreshed(record, changes: changes, solitude: solitude)
        }
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
    ///
    /// - Parameter alone: whether it wants a write of its own. In a write with others what it changes of the room, other than by an
    ///   event, would count as done before their events.
    func perform<T: Sendable>(
        in room: Room, alone: Bool = false, _ body: @escaping @Sendable (inout RoomDraft) async throws -> T
    ) async throws -> T {
        let result = Mutex<T?>(nil)
        let job = RoomJob(isAlone: alone) { draft in
            let value = try await body(&draft)
            result.withLock { $0 = value }
        }
        if try await room.enter(job) == .lead { await lead(room, job) }
        if let failure = job.failure { throw failure }
        return result.withLock { $0! }
    }

    /// Does the job and those that wait, in one write but for those that want one of their own.
    private func lead(_ room: Room, _ own: RoomJob) async {
        let others = room.takeWaiting()
        var rest = ([own] + others)[...]
        while let first = rest.first {
            let part = first.isAlone ? rest.prefix(1) : rest.prefix { !$0.isAlone }
            await carryOut(Array(part), in: room)
            rest = rest.dropFirst(part.count)
        }
        room.leave()
        for job in others { job.continuation?.resume(returning: .done) }
    }

    /// How often a batch is built anew when somebody else keeps moving the room, some milliseconds each; and after how many
    /// times this node asks for a turn, which lasts so many milliseconds if it dies meanwhile.
    private static let attempts = 1_000
    private static let attemptsBeforeTurn = 4
    private static let turn: Int64 = 1_000

    private func carryOut(_ all: [RoomJob], in room: Room) async {
        var jobs = all
        var attempt = 0
        var hopesForNewTransactions = true
        while attempt < Self.attempts {
            for job in jobs { job.failure = nil }
            do {
                if attempt == 0 { try await refresh(room) }
                guard var draft = try await build(jobs, in: room, hopesForNewTransactions) else { return }
                let refusals = await policies.sign(&draft)
                if !refusals.isEmpty {
                    jobs = Self.refuse(refusals, jobs)
                    continue
                }
                try await commit(&draft)
                room.moved(to: draft.record)
                return
            } catch is RoomDraft.RepeatedTransaction where hopesForNewTransactions {
                hopesForNewTransactions = false
            } catch DatabaseError.constraint where hopesForNewTransactions {
                hopesForNewTransactions = false
            } catch DatabaseError.conflict {
                // Another node was faster.
                attempt += 1
                do {
                    if attempt % Self.attemptsBeforeTurn == 0 { try await takeTurn(in: room) }
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

    /// Has the jobs fail whose events the room's policy server doesn't sign.
    ///
    /// - Returns: the others, which are done without them.
    private static func refuse(_ refusals: [Int: MatrixError], _ jobs: [RoomJob]) -> [RoomJob] {
        jobs.filter { job in
            guard let refusal = job.added.lazy.compactMap({ refusals[$0] }).first else { return true }
            job.failure = refusal
            return false
        }
    }

    private func takeTurn(in room: Room) async throws {
        let now = context.surroundings.now()
        var write = Write()
        write.takeTurn(in: room.nid, by: context.node, at: now, until: now + Self.turn)
        try await database.write(write)
    }

    private func fail(_ jobs: [RoomJob], _ error: any Error) {
        for job in jobs where job.failure == nil { job.failure = error }
    }

    /// Runs the jobs one upon the other; nil if there is nothing to write.
    ///
    /// One that fails has hardly ever done something before that; if it has, the others are run again without it.
    private func build(
        _ jobs: [RoomJob], in room: Room, _ hopesForNewTransactions: Bool
    ) async throws -> RoomDraft? {
        let record = room.record
        return try await readUnchecked { reader in
            while true {
                var draft = try await RoomDraft(
                    record, isNew: false, version: room.version, context: self.context, reader: reader)
                draft.hopesForNewTransactions = hopesForNewTransactions
                if try await Self.run(jobs.filter { $0.failure == nil }, on: &draft) {
                    return draft.isEmpty ? nil : draft
                }
            }
        }
    }

    /// - Returns: false if a job has failed half-way and left something in the draft.
    private static func run(_ jobs: [RoomJob], on draft: inout RoomDraft) async throws -> Bool {
        for job in jobs {
            let before = draft.mark
            job.added = 0..<0
            do {
                try await job.run(&draft)
                job.added = before.events..<draft.added.count
            } catch let error as RoomDraft.RepeatedTransaction {
                throw error
            } catch {
                job.failure = error
                if draft.mark != before { return false }
            }
        }
        return true
    }

    /// The other servers with joined members in a room, those with most first.
    func others(in room: Room) async throws -> [ServerNID] {
        if let known = room.others { return known }
        let changes = room.audienceChanges
        let others = try await readOthers(in: room.nid)
        room.found(others, at: changes)
        return others
    }

    /// The same of a room that need not be in use, and isn't because of that.
    func others(in nid: RoomNID) async throws -> [ServerNID] {
        if let room = inUse(nid) { return try await others(in: room) }
        return try await readOthers(in: nid)
    }

    private func readOthers(in nid: RoomNID) async throws -> [ServerNID] {
        let own = try await database.number(ofServer: context.serverName)
        return try await database.readOnce { try await self.database.servers(in: nid, $0) }
            .map(\.server).filter { $0 != own }
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
        draft.write = Write()
        let room = draft.record.nid
        let firstOwn = write.positions
        let positions = draft.added.map { $0.placing.isNewest ? write.takePosition() : .null }
        let bump = draft.added.lastIndex { added in
            added.placing.isNewest && RoomFacts.bumpingTypes.contains(EventType(added.parsed.type))
        }
        let newest = draft.added.lastIndex { $0.placing.isNewest }.map { positions[$0] } ?? .null
        if let before = draft.before {
            write.update(
                draft.record, readAs: before, by: context.node, at: context.surroundings.now(), newest: newest,
                bump: bump.map { positions[$0] } ?? .null)
            if before.version != draft.record.version { write.setVersion(draft.record.version, of: room) }
        } else {
            write.insert(draft.record, newest: newest, bump: bump.map { positions[$0] } ?? newest)
        }
        for row in draft.stateRows { write.insert(stateRow: row.number, row.bytes, room: room) }
        for (added, position) in zip(draft.added, positions) {
            if added.isSearchable { write.enqueueForSearch(added.event.nid, in: room) }
            switch added.placing {
            case .newest: write.insert(added.event, position: position)
            case .newestOfOutlier: write.place(added.event, position: position)
            case .nowhere:
                write.insert(added.event, position: .null)
                continue
            case .nowhereOfOutlier:
                write.place(added.event, position: .null)
                continue
            case .before(let position):
                write.insert(added.event, position: .integer(position))
                continue
            case .beforeOfOutlier(let position):
                write.place(added.event, position: .integer(position))
                continue
            }
            for (user, outcome) in added.notifications.exceptions {
                write.notify(
                    user, of: added.event, position: position, thread: added.notifications.thread, outcome)
            }
            if let until = added.stickyUntil {
                write.stick(
                    added.event.nid, in: room, position: position, until: until, now: context.surroundings.now())
            }
            if let state = added.currentState { write.setState(state, of: room, from: position) }
            for change in added.memberships {
                write.setMembership(
                    change.membership, of: change.user, in: room, event: change.event, position: position,
                    ending: change.ending)
                if change.joined != 0 { write.countJoined(change.joined, of: change.server, in: room) }
            }
        }
        let changes = draft.added.flatMap(\.memberships)
        let departures = changes.filter { $0.joined < 0 }
        let own = changes.isEmpty ? nil : try await database.number(ofServer: context.serverName)
        if let own, !departures.isEmpty { dropRemoteDevices(of: departures, room, own, &write) }
        if let own { try await tellDevices(ofForgottenAmong: changes, of: draft, own, &write) }
        for added in draft.added where added.event.redactedBy != nil {
            write.planOverwrite(
                of: added.event.eventID, at: context.surroundings.now() + context.keepRedacted)
        }
        // What this server makes nobody can have referred to.
        for added in draft.added where added.placing.isShown && !added.event.flags.contains(.outgoing) {
            write.flagIfParent(added.event.eventID)
        }
        write.insert(draft.chains)
        write.topics.append(.room(room))
        for nid in draft.outdated { write.topics.append(.event(nid)) }
        let isForOthers =
            draft.isPartial || draft.before?.partialJoin != nil || changes.contains { $0.server != own }
        let inUse = isForOthers ? active.withLock { $0.byNumber[room] } : nil
        inUse?.beginAudienceChange()
        defer {
            inUse?.endAudienceChange()
            // It may have been loaded anew meanwhile.
            if isForOthers, let now = self.inUse(room), now !== inUse { now.changeAudience() }
        }
        let first = try await database.write(write).firstPosition + Int64(firstOwn)
        var offset: Int64 = 0
        var bumped: Int64?
        for (index, added) in draft.added.enumerated() where added.placing.isNewest {
            let position = first + offset
            offset += 1
            if index == bump { bumped = position }
            // What was an outlier before is read anew.
            if case .newest = added.placing { database.storedEvents.insert(added.event.at(position: position)) }
        }
        if offset > 0 { draft.moveFacts(newest: first + offset - 1, bump: bumped) }
        draft.committed()
        if departures.isEmpty { return }
        for user in try await database.users(departures.map(\.user)).values {
            try await typing.left(user, room)
        }
    }

    /// Whose devices are told of to this server only while a room is shared: what it knows of them isn't good beyond.
    private func dropRemoteDevices(
        of departures: [RoomDraft.MembershipChange], _ room: RoomNID, _ own: ServerNID, _ write: inout Write
    ) {
        for departure in departures where departure.server != own { write.dropRemoteDevices(of: departure.user) }
        if departures.contains(where: { $0.server == own }) {
            write.dropRemoteDevices(ofAllIn: room, unlessJoinedBy: own)
        }
    }

    /// Milliseconds by which others' clocks may be wrong.
    private static let clockError: Int64 = 3_600_000

    /// A server, or somebody here, turns out to be in a room since before this one was restored from a backup. Others may know devices
    /// of users here as they were in what is forgotten, and what has changed since wasn't told to them, so they have to ask again.
    private func tellDevices(
        ofForgottenAmong changes: [RoomDraft.MembershipChange], of draft: RoomDraft, _ own: ServerNID,
        _ write: inout Write
    ) async throws {
        guard let restored = context.restoredAt else { return }
        let room = draft.record.nid
        var concerned: Set<UserNID> = []
        var isServerForgotten = false
        for change in changes where change.joined > 0 && (change.server == own || !isServerForgotten) {
            var join = draft.added[change.event]?.event
            if join == nil { join = try await database.events([change.event]).first }
            guard let join, join.originServerTS < restored + Self.clockError else { continue }
            if change.server == own {
                concerned.insert(change.user)
            } else {
                isServerForgotten = try await database.joinedMembers(of: change.server, in: room) == 0
            }
        }
        if isServerForgotten {
            concerned.formUnion(
                try await database.read { try await self.database.localUsers(in: room, .join, $0) })
        }
        for user in concerned { write.changeDeviceList(of: user) }
    }

    /// Makes a room out of a draft that begins with its create event.
    func make(_ draft: inout RoomDraft) async throws -> Room {
        try await commit(&draft)
        return try remember(draft.record)
    }
}
