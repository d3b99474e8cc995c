import Database
import Logging
import MatrixCore
import Synchronization

/// Events that are sent later (MSC4140): what is scheduled stands in the database, and is sent on time by whichever node holds the
/// lease, also after a restart.
public final class DelayedEventService: Sendable {
    let rooms: RoomRegistry
    let rateLimits: RateLimiter
    private let node: String
    private let logger: Logger
    private var database: Database { rooms.database }
    private var surroundings: Surroundings { rooms.context.surroundings }

    private struct Timer {
        var at: Int64 = .max
        var cancel: Surroundings.Cancel?
        var isStopped = true
    }

    /// The timer of the next look. The lock protects it; nothing is awaited while it is held.
    private let timer = Mutex(Timer())

    /// How far ahead an event may be scheduled, in milliseconds: a day.
    public static let longestDelay: Int64 = 86_400_000
    /// Events that a user may have scheduled at once.
    public static let mostScheduled = 100
    private static let largestContent = 65_536
    /// What is finalised is kept for so long, and so many of a user (MSC4140, "Retention of finalised delayed events").
    private static let kept: Int64 = 7 * 86_400_000
    private static let mostKept = 1_000
    /// How long a node holds the lease; and how long another one's events wait at most when that one is gone: the proposal
    /// allows 30 seconds.
    private static let leaseTime: Int64 = 20_000
    private static let batch = 50

    init(rooms: RoomRegistry, rateLimits: RateLimiter, node: String, logger: Logger) {
        self.rooms = rooms
        self.rateLimits = rateLimits
        self.node = node
        self.logger = logger
    }

    // MARK: - Scheduling

    /// What is to be sent.
    public struct Request: Sendable {
        public var type: String
        /// nil for message events.
        public var stateKey: String?
        public var content: JSON
        public var delay: Int64
        public var transactionID: String
        public var timestamp: Int64?
        /// How long the event is sticky, in milliseconds.
        public var sticky: Int64?

        public init(
            type: String, stateKey: String?, content: JSON, delay: Int64, transactionID: String,
            timestamp: Int64? = nil, sticky: Int64? = nil
        ) {
            self.type = type
            self.stateKey = stateKey
            self.content = content
            self.delay = delay
            self.transactionID = transactionID
            self.timestamp = timestamp
            self.sticky = sticky
        }
    }

    /// Schedules an event. The same transaction again answers what it has scheduled.
    ///
    /// - Returns: the `delay_id`.
    /// - Throws: `M_FORBIDDEN` beyond the longest delay, `M_LIMIT_EXCEEDED` beyond the number a user may have scheduled.
    public func schedule(_ request: Request, in roomID: RoomID, by requester: Requester) async throws -> String {
        guard request.delay > 0 else { throw MatrixError.invalidParam("The delay must be above 0 milliseconds.") }
        guard request.delay <= Self.longestDelay else {
            throw MatrixError.forbidden("Events can be delayed by \(Self.longestDelay) milliseconds at most.")
        }
        let content = request.content.encoded()
        guard content.count <= Self.largestContent else {
            throw MatrixError.tooLarge("The content of an event may have \(Self.largestContent) bytes.")
        }
        let (room, access) = try await rooms.readable(roomID, by: requester)
        guard access.isMember else { throw MembershipService.notInRoom }
        let key = Array(
            Hashing.sha256(
                Array("\(requester.deviceID)\0delayed\0\(roomID)\0\(request.type)\0\(request.transactionID)".utf8)
            ).prefix(16))
        if let known = try await database.delayedEvent(ofTransaction: key, by: requester.nid) { return known.delayID }
        let now = surroundings.now()
        let scheduled = try await database.delayedEvents(of: requester.nid)
        guard scheduled.count < Self.mostScheduled else {
            var failure = MatrixError.limitExceeded(
                retryAfterMS: Int(max(1, (scheduled.first?.dueAt ?? now) - now)))
            failure.message = "You have \(Self.mostScheduled) events scheduled, and can't have more."
            throw failure
        }
        let event = DelayedEvent(
            delayID: surroundings.randomText(24), user: requester.nid, deviceID: requester.deviceID, room: room.nid,
            type: request.type, stateKey: request.stateKey, content: content, sticky: request.sticky,
            timestamp: request.timestamp, transactionKey: key, delay: request.delay, scheduledAt: now)
        var write = Write()
        write.schedule(event)
        do { try await database.write(write) } catch DatabaseError.constraint {
            // The same request came twice at once.
            guard let known = try await database.delayedEvent(ofTransaction: key, by: requester.nid) else {
                throw MatrixError.stopping
            }
            return known.delayID
        }
        wake(at: event.dueAt)
        return event.delayID
    }

    // MARK: - Managing

    public enum Action: String, Sendable {
        case send, cancel, restart
    }

    private func own(_ delayID: String, _ requester: Requester) async throws -> DelayedEvent {
        guard let event = try await database.delayedEvent(delayID), event.user == requester.nid else {
            throw MatrixError.notFound("There is no such delayed event.")
        }
        return event
    }

    /// Sends an event now, cancels it, or begins its delay anew.
    ///
    /// - Throws: `M_NOT_FOUND`; `M_UNKNOWN` with status 409 if it has come to another end already.
    public func perform(_ action: Action, on delayID: String, by requester: Requester) async throws {
        // Who is faster, the client or the time, decides the database; then it is looked at again.
        for _ in 0..<10 {
            let event = try await own(delayID, requester)
            if event.finalisedAt != nil {
                let matches = action == .send && event.eventID != nil || action == .cancel && event.eventID == nil
                if matches { return }
                throw MatrixError(
                    .unknown, "This event was \(event.eventID == nil ? "cancelled" : "sent") already.", status: 409)
            }
            let now = surroundings.now()
            var write = Write()
            switch action {
            case .send:
                do { try await send(event, dueAt: nil, by: requester) } catch DatabaseError.conflict { continue }
                return
            case .cancel:
                write.finalise(event, at: now, keeping: Self.mostKept, since: now - Self.kept)
            case .restart: write.restart(event, at: now)
            }
            do { try await database.write(write) } catch DatabaseError.conflict { continue }
            if action == .restart { wake(at: now + event.delay) }
            return
        }
        throw MatrixError.limitExceeded(retryAfterMS: 1_000)
    }

    /// What is known of an event, scheduled or finalised.
    public func event(_ delayID: String, for requester: Requester) async throws -> JSON {
        try await describe(try await own(delayID, requester))
    }

    /// What a user has scheduled, in the order in which it is going to be sent.
    public func events(for requester: Requester) async throws -> [JSON] {
        var found: [JSON] = []
        for event in try await database.delayedEvents(of: requester.nid) { found.append(try await describe(event)) }
        return found
    }

    private func describe(_ event: DelayedEvent) async throws -> JSON {
        var json: JSON = [
            "delay_id": .string(event.delayID), "room_id": .string(try await rooms.room(event.room).roomID.string),
            "type": .string(event.type), "delay_ms": .integer(event.delay),
            "scheduled_at": .integer(event.scheduledAt), "content": .raw(event.content),
            // The names that clients know today.
            "delay": .integer(event.delay), "running_since": .integer(event.scheduledAt),
        ]
        if let key = event.stateKey { json["state_key"] = .string(key) }
        if let error = event.error { json["error"] = .raw(error) }
        if let eventID = event.eventID { json["event_id"] = .string(eventID) }
        if let finalisedAt = event.finalisedAt { json["finalised_ts"] = .integer(finalisedAt) }
        return json
    }

    // MARK: - Sending

    /// Sends an event and notes that, both or neither.
    ///
    /// - Parameter dueAt: the time by which it must be due; nil to send it whenever that is.
    /// - Throws: ``DatabaseError/conflict(_:)`` if it was finalised or begun anew meanwhile.
    private func send(
        _ event: DelayedEvent, dueAt: Int64?, by requester: Requester, under lease: Lease? = nil
    ) async throws {
        // One whose time has come counted when it was scheduled; it has no second chance.
        if dueAt == nil { try rateLimits.take(.message, for: requester.userID.string) }
        let room = try await rooms.room(event.room)
        let now = surroundings.now()
        let content = try JSONDocument(parsing: event.content, limits: .own).root.json
        try await rooms.perform(in: room) { draft in
            // A batch that loses against another node is built anew: by then it may have been sent.
            guard let current = try await self.database.delayedEvent(event.delayID), current.finalisedAt == nil,
                dueAt.map({ current.dueAt <= $0 }) ?? true
            else { throw DatabaseError.conflict("the delayed event is finalised") }
            if let lease, try await !self.database.isHeld(lease) {
                throw DatabaseError.conflict("another node sends delayed events now")
            }
            try await SuspensionRules.checkMaySend(event.type, redacts: nil, by: requester, self.database)
            let sent = try await draft.append(
                event.type, stateKey: event.stateKey, content: content, sender: requester.userID,
                transactionKey: StoredEvent.delayedKey(event.delayID), timestamp: event.timestamp,
                sticky: event.sticky)
            if let lease { draft.write.require(lease) }
            draft.write.finalise(
                event, sentAs: sent.eventID, at: now, ifDueAt: dueAt, keeping: Self.mostKept,
                since: now - Self.kept)
        }
    }

    /// Who sends an event whose time has come: its user, if the account may still do that.
    private func sender(of event: DelayedEvent) async throws -> Requester {
        guard let account = try await database.account(event.user), !account.isDeactivated,
            !account.standing.contains(.locked)
        else { throw MatrixError.forbidden("The account can't send any more.") }
        return Requester(
            nid: account.nid, userID: account.userID, deviceID: event.deviceID, isAdmin: account.isAdmin,
            standing: account.standing)
    }

    /// Sends all whose time has come, in the order of their times.
    ///
    /// - Returns: how many were sent or have failed; nil if another node is at it.
    func run() async throws -> Int? {
        let now = surroundings.now()
        guard try await database.nextDelayedEvent().map({ $0 <= now }) ?? false else { return 0 }
        guard
            let lease = try await database.lease("delayed events", holder: node, now: now, duration: Self.leaseTime)
        else { return nil }
        var count = 0
        while true {
            let now = surroundings.now()
            let due = try await database.delayedEventsDue(at: now, limit: Self.batch)
            if due.isEmpty { break }
            _ = try await database.lease("delayed events", holder: node, now: now, duration: Self.leaseTime)
            for event in due {
                do {
                    try await send(event, dueAt: now, by: try await sender(of: event), under: lease)
                } catch let failure as MatrixError {
                    try await fail(event, failure, dueAt: now, lease)
                } catch DatabaseError.conflict { continue }
                count += 1
            }
        }
        // Whoever schedules next, on whatever node, sends on time.
        var write = Write()
        write.release(lease)
        try await database.write(write)
        return count
    }

    private func fail(_ event: DelayedEvent, _ failure: MatrixError, dueAt: Int64, _ lease: Lease) async throws {
        let now = surroundings.now()
        var write = Write()
        write.require(lease)
        write.finalise(
            event, error: failure.json.encoded(), at: now, ifDueAt: dueAt, keeping: Self.mostKept,
            since: now - Self.kept)
        do { try await database.write(write) } catch DatabaseError.conflict {}
    }

    // MARK: - Waking

    func start() async throws {
        timer.withLock { $0.isStopped = false }
        wake(at: try await nextLook())
    }

    func stop() {
        timer.withLock { timer in
            timer.isStopped = true
            timer.cancel?()
            timer.cancel = nil
            timer.at = .max
        }
    }

    /// When to look next: when something is due; and, as another node's events may be left to this one, after a while.
    private func nextLook() async throws -> Int64 {
        let next = try await database.nextDelayedEvent() ?? .max
        return database.engine.isShared ? min(next, surroundings.now() + Self.leaseTime) : next
    }

    /// Has the job look at a time, if it wouldn't before.
    private func wake(at time: Int64) {
        if time == .max { return }
        let wait = max(0, time - surroundings.now())
        timer.withLock { timer in
            guard !timer.isStopped, time < timer.at else { return }
            timer.cancel?()
            timer.at = time
            timer.cancel = surroundings.after(wait) { [weak self] in
                guard let self else { return }
                self.timer.withLock { $0.at = .max }
                Task { await self.look() }
            }
        }
    }

    private func look() async {
        do {
            let isElsewhere = try await run() == nil
            wake(at: isElsewhere ? surroundings.now() + 1_000 : try await nextLook())
        } catch {
            logger.error("sending delayed events failed; it is tried again", metadata: ["reason": "\(error)"])
            wake(at: surroundings.now() + Self.leaseTime)
        }
    }
}

extension StoredEvent {
    /// What stands in the place of a transaction for an event that was delayed.
    static func delayedKey(_ delayID: String) -> String { "\0\0\(delayID)" }

    /// The `delay_id` of an event that was delayed.
    var delayID: Substring? {
        guard let transactionKey, transactionKey.utf8.starts(with: [0, 0]) else { return nil }
        return transactionKey.dropFirst(2)
    }
}
