import Database
import Logging
import MatrixCore
import Synchronization

/// Takes what other servers send (Server-Server API, "Transactions"): an event is in the room, or in the queue of those that wait for
/// others, before the server is answered.
public final class FederationInbox: Sendable {
    private let rooms: FederatedRooms
    private let intake: EventIntake
    private let missing: MissingEvents
    private let remote: RemoteMemberships
    private let edus: EDUInbox
    private let logger: Logger
    private var database: Database { rooms.database }
    private var context: RoomContext { rooms.context }

    /// Server-Server API, "Transactions".
    private static let mostEvents = 50
    private static let mostEDUs = 100
    /// Events of a room that wait at most: a server that sends more of them is told so.
    private static let mostStaged = 1_000
    /// Milliseconds for which an event that rests on what nobody has is tried, and for which transactions are remembered.
    private static let patience: Int64 = 3_600_000
    private static let memory: Int64 = 24 * 3_600_000
    /// Milliseconds until such an event is tried again: at first, and at most. They double each time, since each try asks servers:
    /// whoever keeps events back must not have others ask for them all the time.
    private static let shortestPause: Int64 = 30_000
    private static let longestPause: Int64 = 900_000
    /// The same where something has moved that others may have waited for.
    private static let pauseWhileMoving: Int64 = 1_000
    /// Milliseconds until a server is told that this one has left a room, and until it would be told again.
    private static let grace: Int64 = 3_000
    private static let rest: Int64 = 3_600_000
    /// Rooms that are being filled at the same time; mostly they wait for other servers. If more want to be, each gets on by an event
    /// and lets the next one go on, so that no sick room or slow server holds up the others (A16).
    private static let atOnce = 32

    private struct State {
        /// Rooms in which events wait, the first to be worked on first, and those that are worked on.
        var waiting: [RoomNID] = []
        var running: Set<RoomNID> = []
        /// Takes back the next try, in rooms that are not worked on until then.
        var retries: [RoomNID: Surroundings.Cancel] = [:]
        /// Where rooms go on that have let others go first.
        var places: [RoomNID: (position: Int64, place: Int64)] = [:]
        /// Rooms whose events are all to be tried now, whenever it would be their turn.
        var beginningAnew: Set<RoomNID> = []
        var isClosed = false
    }

    /// The lock protects the sets.
    private let state = Mutex(State())
    private let forgetting: PeriodicWork

    private struct Staged: Hashable {
        let room: RoomNID
        let position: Int64
        let place: Int64
    }

    /// A server that is told that this one isn't in a room any more.
    private struct Correction: Hashable {
        let room: RoomNID
        let server: ServerName
    }

    /// Until when servers aren't corrected again. The lock protects the cache.
    private let corrections = Mutex(BoundedCache<Correction, Int64>(capacity: 5_000))

    /// How an event was tried that waits.
    private struct Attempt {
        var count = 0
        /// When it is tried again.
        var due: Int64 = 0
    }

    /// The lock protects the cache. What drops out of it is tried a little sooner.
    private let attempts = Mutex(BoundedCache<Staged, Attempt>(capacity: 20_000))

    init(
        rooms: FederatedRooms, intake: EventIntake, missing: MissingEvents, remote: RemoteMemberships,
        edus: EDUInbox, logger: Logger
    ) {
        self.rooms = rooms
        self.intake = intake
        self.missing = missing
        self.remote = remote
        self.edus = edus
        self.logger = logger
        forgetting = PeriodicWork(rooms.context.surroundings, every: Self.memory / 24)
        remote.arrivals.connect { [weak self] in self?.begin($0) }
    }

    /// Goes on with what was waiting when the server stopped.
    func start() async throws {
        for room in try await database.roomsWithStagedEvents() { begin(room) }
        forgetting.start { [weak self] in await self?.forgetOld() }
    }

    func stop() {
        forgetting.stop()
        let retries = state.withLock { state in
            state.isClosed = true
            defer { state.retries = [:] }
            return state.retries
        }
        for cancel in retries.values { cancel() }
    }

    /// Lets go of transactions that nobody repeats any more.
    private func forgetOld() async {
        var write = Write()
        write.forgetTransactions(before: context.surroundings.now() - Self.memory)
        do { try await database.write(write) } catch {
            logger.warning("old transactions are forgotten later", metadata: ["reason": "\(error)"])
        }
    }

    // MARK: - Transactions

    /// Takes a transaction (`PUT /_matrix/federation/v1/send/{txnId}`); the same one again changes nothing.
    ///
    /// - Returns: the answer: for each event whether it was taken.
    public func receive(_ body: JSONView, transactionID: String, from server: ServerName) async throws -> [UInt8] {
        guard transactionID.utf8.count <= 255 else {
            throw MatrixError.invalidParam("A transaction's ID has up to 255 bytes.")
        }
        let nid = try await database.number(ofServer: server)
        if let answer = try await database.answer(toTransaction: transactionID, of: nid) { return answer }
        guard let events = body["pdus"], events.isArray else { throw MatrixError.badJSON("“pdus” must be an array.") }
        let edus = body["edus"]?.elements.map { $0 } ?? []
        guard events.count <= Self.mostEvents, edus.count <= Self.mostEDUs else {
            throw MatrixError.badJSON("A transaction has up to \(Self.mostEvents) PDUs and \(Self.mostEDUs) EDUs.")
        }
        var byRoom: [RoomID: [JSONView]] = [:]
        for event in events.elements {
            guard let roomID = event["room_id"]?.string.flatMap({ RoomID($0) }) else { continue }
            byRoom[roomID, default: []].append(event)
        }
        let groups = byRoom
        let results = try await withThrowingTaskGroup(of: [(EventID, String?)].self) { group in
            for (roomID, events) in groups {
                group.addTask { try await self.receive(events, in: roomID, from: server, nid) }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        for edu in edus { await self.edus.receive(edu, from: server) }
        var answers = JSONObject()
        for (event, error) in results.sorted(by: { $0.0 < $1.0 }) {
            answers[event.string] = error.map { ["error": .string($0)] } ?? [:]
        }
        let answer = JSON.object(["pdus": .object(answers)]).encoded()
        var write = Write()
        write.remember(transaction: transactionID, of: nid, answer: answer, at: context.surroundings.now())
        try await database.write(write)
        return answer
    }

    /// Takes events of one room, in their order.
    private func receive(
        _ views: [JSONView], in roomID: RoomID, from server: ServerName, _ serverNID: ServerNID
    ) async throws -> [(EventID, String?)] {
        var found: Room
        do {
            found = try await rooms.room(roomID, for: server)
        } catch is MatrixError {
            let outside = OutsideMemberships(federated: rooms, intake: intake)
            if remote.arrivals.isComing(roomID), let ended = try await outside.end(views, in: roomID, by: server),
                ended.contains(where: { $0.1 == nil })
            {
                return ended
            }
            switch await remote.arrivals.keep(views, of: roomID, from: serverNID) {
            case .kept: return Self.named(views, nil)
            case .full: return Self.named(views, Self.tooMany)
            case .notComing: break
            }
            do {
                // This server may have come in just now.
                found = try await rooms.room(roomID, for: server)
            } catch let error as MatrixError {
                try await correct(server, serverNID, about: roomID)
                return try await outside.end(views, in: roomID, by: server)
                    ?? Self.named(views, error.message)
            }
        }
        let room = found
        var refused: [(EventID, String?)] = []
        var events: [Event] = []
        for (result, view) in zip(try await intake.check(views, in: roomID, room.version), views) {
            switch result {
            case .success(let event): events.append(event)
            case .failure(let reason):
                if let event = try? Event(receiving: Array(view.raw), version: room.version) {
                    refused.append((event.eventID, reason.description))
                }
            }
        }
        if events.isEmpty { return refused }
        let taken = try await rooms.vouchedFor(events, in: room)
        // Keys and signatures took their time, in which the room may have put the server out.
        guard try await rooms.allows(server, in: room) else {
            return refused + taken.map { ($0.eventID, "The room's access control list keeps \(server) out.") }
        }
        let now = context.surroundings.now()
        let mayStage = try await database.countOfStagedEvents(in: room.nid) < Self.mostStaged
        let (results, isWaiting) = try await rooms.rooms.perform(in: room) { draft in
            var results: [(EventID, String?)] = []
            var position: SQLValue?
            for (place, event) in taken.enumerated() {
                do {
                    switch try await draft.receive(event) {
                    case .accepted, .softFailed, .known: results.append((event.eventID, nil))
                    case .rejected(let reason): results.append((event.eventID, reason))
                    }
                } catch is RoomDraft.Missing {
                    guard mayStage else {
                        results.append((event.eventID, Self.tooMany))
                        continue
                    }
                    let at = position ?? draft.write.takePosition()
                    position = at
                    draft.write.stage(
                        event, in: room.nid, position: at, place: Int64(place), from: serverNID, at: now)
                    results.append((event.eventID, nil))
                }
            }
            return (results, position != nil)
        }
        if isWaiting { begin(room.nid) }
        return results + refused
    }

    private static let tooMany = "Too many events of this room wait for others."

    private static func named(_ views: [JSONView], _ reason: String?) -> [(EventID, String?)] {
        // Without its room's version an event has no ID but the one it may name.
        views.compactMap { $0["event_id"]?.string.flatMap { EventID($0) }.map { ($0, reason) } }
    }

    /// A server tells this one of a room that it has left. It may not know that, and can't learn it otherwise. A stranger to
    /// the room doesn't learn from it who was there.
    private func correct(_ server: ServerName, _ serverNID: ServerNID, about roomID: RoomID) async throws {
        guard let room = try await rooms.rooms.room(roomID), room.wasEntered, try await !rooms.isResident(room),
            try await database.hasBeenIn(room.nid, server: serverNID)
        else { return }
        let now = context.surroundings.now()
        let place = Correction(room: room.nid, server: server)
        let isDue = corrections.withLock { corrections in
            if let rest = corrections[place], rest > now { return false }
            corrections.insert(now + Self.rest, for: place, size: 1)
            return true
        }
        guard isDue else { return }
        // What waits for the server, which is awake now, comes to it first.
        _ = context.surroundings.after(Self.grace) { [weak self] in
            guard let self else { return }
            Task {
                if (try? await self.remote.leaveAgain(room, at: server)) != true {
                    self.corrections.withLock { $0.remove(place) }
                }
            }
        }
    }

    // MARK: - What waits

    /// All members of a room are known: what has waited for them can be taken up.
    func roomIsWhole(_ room: RoomNID) {
        state.withLock { _ = $0.beginningAnew.insert(room) }
        begin(room)
    }

    private func begin(_ room: RoomNID) {
        let mayGo = state.withLock { state in
            guard !state.isClosed else { return false }
            guard state.running.count < Self.atOnce, state.running.insert(room).inserted else {
                if !state.waiting.contains(room) { state.waiting.append(room) }
                return false
            }
            return true
        }
        if mayGo { Task { await self.work(room) } }
    }

    private func work(_ nid: RoomNID) async {
        let outcome = await fill(nid)
        let (next, old): (RoomNID?, Surroundings.Cancel?) = state.withLock { state in
            state.running.remove(nid)
            if outcome == .unfinished, !state.waiting.contains(nid) { state.waiting.append(nid) }
            let old = state.retries.removeValue(forKey: nid)
            guard !state.isClosed, let index = state.waiting.firstIndex(where: { !state.running.contains($0) }) else {
                return (nil, old)
            }
            return (state.waiting.remove(at: index), old)
        }
        old?()
        if case .waits(let due) = outcome { tryAgain(nid, at: due) }
        if let next { begin(next) }
    }

    private func tryAgain(_ room: RoomNID, at time: Int64) {
        let pause = max(time - context.surroundings.now(), Self.pauseWhileMoving)
        let cancel = context.surroundings.after(pause) { [weak self] in self?.begin(room) }
        let superfluous = state.withLock { state in
            if state.isClosed { return cancel as Surroundings.Cancel? }
            return state.retries.updateValue(cancel, forKey: room)
        }
        superfluous?()
    }

    private enum Filling: Equatable {
        /// Nothing waits any more.
        case done
        /// Others wait for their turn.
        case unfinished
        /// What is left is tried again at that time.
        case waits(Int64)
    }

    /// - Returns: whether another room is to go on first.
    private func yields(_ room: RoomNID, at place: (position: Int64, place: Int64)) -> Bool {
        state.withLock { state in
            guard state.waiting.contains(where: { !state.running.contains($0) }) else { return false }
            state.places[room] = place
            return true
        }
    }

    /// Takes up what waits in a room and is due, oldest first.
    private func fill(_ nid: RoomNID) async -> Filling {
        do {
            let room = try await rooms.rooms.room(nid)
            let (resumed, isAnew) = state.withLock { state in
                let isAnew = state.beginningAnew.remove(nid) != nil
                let place = state.places.removeValue(forKey: nid)
                return (isAnew ? nil : place, isAnew)
            }
            // What came before that place may still wait.
            var due: Int64? = resumed.map { _ in context.surroundings.now() + Self.shortestPause }
            var place: (position: Int64, place: Int64) = resumed ?? (.min, .min)
            var isFirst = true
            var isMoving = false
            while !state.withLock({ $0.isClosed }) {
                let staged = try await database.stagedEvents(in: nid, after: place, limit: 100)
                if staged.isEmpty { break }
                let names = try await database.servers(staged.map(\.server))
                for one in staged {
                    let event = try Event(receiving: one.json, version: room.version)
                    let key = Staged(room: nid, position: one.position, place: one.place)
                    let attempt = attempts.withLock { $0[key] } ?? Attempt()
                    if !isAnew, attempt.due > context.surroundings.now(), try await !isComplete(event) {
                        due = min(due ?? .max, attempt.due)
                    } else {
                        if !isFirst, yields(nid, at: place) { return .unfinished }
                        isFirst = false
                        if let next = try await take(event, one, attempt, from: names[one.server], in: room) {
                            due = min(due ?? .max, next)
                        } else {
                            isMoving = true
                        }
                    }
                    place = (one.position, one.place)
                }
            }
            guard let due else { return .done }
            return .waits(isMoving ? context.surroundings.now() + Self.pauseWhileMoving : due)
        } catch {
            logger.error("filling a room up failed; it is tried again", metadata: ["reason": "\(error)"])
            return .waits(context.surroundings.now() + Self.shortestPause)
        }
    }

    /// Takes up an event that waits, or gives it up.
    ///
    /// - Returns: when it is tried again; nil if it doesn't wait any more.
    private func take(
        _ event: Event, _ staged: Database.StagedEvent, _ attempt: Attempt, from origin: ServerName?, in room: Room
    ) async throws -> Int64? {
        do {
            if let origin, try await !rooms.allows(origin, in: room) {
                // Put out of the room while its events waited.
                try await unstage(event)
                return nil
            }
            _ = try await missing.receive(event, in: room, from: origin ?? event.sender.server)
            return nil
        } catch let error as DatabaseError {
            throw error
        } catch {
            logger.debug("an event waits for others", metadata: ["event": "\(event.eventID)", "reason": "\(error)"])
            let now = context.surroundings.now()
            // Who has been put out isn't told any more what came before that.
            let isRefused =
                if let status = (error as? FederationFailure)?.status { (400..<500).contains(status) } else { false }
            let isHopeless = if isRefused { try await !rooms.isResident(room) } else { false }
            if now - staged.received > Self.patience || isHopeless {
                try await unstage(event)
                return nil
            }
            var next = attempt
            next.due = now + min(Self.shortestPause << min(attempt.count, 10), Self.longestPause)
            next.count += 1
            let noted = next
            attempts.withLock { attempts in
                attempts.insert(
                    noted, for: Staged(room: room.nid, position: staged.position, place: staged.place), size: 1)
            }
            return next.due
        }
    }

    private func unstage(_ event: Event) async throws {
        var write = Write()
        write.unstage(event.eventID)
        try await database.write(write)
    }

    /// Whether all that an event rests on has come meanwhile.
    private func isComplete(_ event: Event) async throws -> Bool {
        let found = try await database.read { reader in
            try await self.database.events(event.prevEvents + event.authEvents, reader)
        }
        return event.prevEvents.allSatisfy { found[$0]?.stateBefore != nil }
            && event.authEvents.allSatisfy { found[$0] != nil }
    }
}
