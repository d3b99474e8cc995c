import Database
import Logging
import MatrixCore
import Synchronization

/// Sync: what has happened for a user between two positions (Client-Server API, "Syncing").
public final class SyncService: Sendable {
    let rooms: RoomRegistry
    let pushRules: PushRuleService
    let unread: UnreadCounts
    let presence: PresenceService
    let serial: EphemeralSerial
    let notifier: Notifier
    let typing: Typing
    let events: ClientEvents
    let activity: Activity
    public let devices: DeviceSync
    /// Answers that tell everything from the beginning.
    let heavyWork = HeavyWork()
    /// Of the database, and of this process.
    let epoch: String
    let lazyMembers = LazyMembers()
    let run: String
    let logger: Logger

    struct KnownMemberships: Sendable {
        var asOf: Int64
        var list: [RoomMembership]
        /// Those rooms of the list that the user has joined.
        var joined: Set<RoomNID>

        init(asOf: Int64, list: [RoomMembership]) {
            self.asOf = asOf
            self.list = list
            joined = Set(list.lazy.filter { $0.membership == .join }.map(\.room))
        }
    }

    /// The lock protects the cache; nothing is awaited while it is held.
    private let memberships = Mutex(BoundedCache<UserNID, KnownMemberships>(capacity: 200_000))

    var database: Database { rooms.database }
    var context: RoomContext { rooms.context }

    init(
        rooms: RoomRegistry, pushRules: PushRuleService, unread: UnreadCounts, presence: PresenceService,
        serial: EphemeralSerial, notifier: Notifier, typing: Typing, activity: Activity, devices: DeviceSync,
        epoch: String, run: String, logger: Logger
    ) {
        self.pushRules = pushRules
        self.unread = unread
        self.presence = presence
        self.serial = serial
        self.rooms = rooms
        self.notifier = notifier
        self.typing = typing
        self.activity = activity
        self.devices = devices
        self.epoch = epoch
        self.run = run
        self.logger = logger
        events = ClientEvents(context: rooms.context)
    }

    /// What a client asks for (`GET /sync`).
    public struct Request: Sendable {
        public var since: String?
        /// Milliseconds to wait for something new.
        public var timeout: Int64
        public var fullState: Bool
        public var filter: SyncFilter
        /// Whether the state at the end of the timeline is wanted (`use_state_after`).
        public var wantsStateAfter = false
        /// What the client's being there says of its user (`set_presence`).
        public var presence = PresenceService.State.online

        public init(since: String?, timeout: Int64, fullState: Bool, filter: SyncFilter) {
            self.since = since
            self.timeout = timeout
            self.fullState = fullState
            self.filter = filter
        }
    }

    /// The longest wait that a client may ask for, in milliseconds.
    static let longestWait: Int64 = 300_000

    /// Answers at once if there is something to tell, and otherwise when there is or when the time is up.
    ///
    /// - Returns: the encoded answer.
    /// - Throws: `M_INVALID_PARAM` if `since` is not a token of this server.
    public func sync(_ request: Request, for requester: Requester) async throws -> [UInt8] {
        try await poll(request, for: requester).finished()
    }

    /// The same; the caller waits, if there is nothing to tell yet.
    public func poll(_ request: Request, for requester: Requester) async throws -> LongPoll {
        let since = try await token(request.since)
        try await presence.synced(request.presence, by: requester)
        if let since { try await devices.acknowledge(since.toDevicePosition, by: requester) }
        let deadline = context.surroundings.now() + min(max(request.timeout, 0), Self.longestWait)
        if since != nil, !request.fullState { return try await look(request, since, until: deadline, requester) }
        return try await heavyWork.run(for: requester.nid) {
            try await self.look(request, since, until: deadline, requester)
        }
    }

    /// A token of the present, for a client that comes with another one.
    func present(after since: SyncToken?) -> SyncToken {
        var token = SyncToken(epoch: epoch, position: database.committedPosition, run: run, ephemeral: serial.current)
        if let since, database.engine.isShared { token.remember(since) }
        return token
    }

    private func look(
        _ request: Request, _ since: SyncToken?, until deadline: Int64, _ requester: Requester
    ) async throws -> LongPoll {
        while true {
            let known = try await memberships(of: requester.nid)
            // Registered before anything is read: what has happened since wakes it.
            let waiter = notifier.register(requester.nid, rooms: known.joined)
            var isWaiting = false
            defer { if !isWaiting { notifier.remove(waiter) } }
            let upTo = present(after: since)
            guard isCurrent(known, of: requester.nid) else { continue }
            var builder = SyncBuilder(
                service: self, requester: requester, since: since, upTo: upTo, filter: request.filter,
                fullState: request.fullState, wantsStateAfter: request.wantsStateAfter,
                now: context.surroundings.now(),
                listsSince: since?.position ?? (request.since == nil ? nil : 0))
            let (answer, isEmpty) = try await builder.build(known.list)
            let left = deadline - context.surroundings.now()
            guard isEmpty, since != nil, !request.fullState, left > 0, !notifier.isDraining else {
                return .answered(answer)
            }
            isWaiting = true
            return wait(waiter, atMost: left, as: request.presence, requester) {
                try await self.look(request, since, until: deadline, requester)
            }
        }
    }

    /// Waits until something happens or the time is up; the user's device is there meanwhile.
    ///
    /// - Parameter look: looks again.
    func wait(
        _ waiter: Notifier.Waiter, atMost milliseconds: Int64, as state: PresenceService.State, _ requester: Requester,
        look: @escaping @Sendable () async throws -> LongPoll
    ) -> LongPoll {
        let cancel = context.surroundings.after(milliseconds) { waiter.wake() }
        if state != .offline { presence.waits(true, requester) }
        return .waiting(
            PendingLook(waiter) {
                self.notifier.remove(waiter)
                cancel()
                if state != .offline { self.presence.waits(false, requester) }
            } look: {
                try await self.presence.synced(state, by: requester)
                return try await look()
            })
    }

    /// The position that a token of this server stands for.
    ///
    /// - Throws: `M_INVALID_PARAM` if it is none.
    public func position(of text: String) async throws -> Int64 { try await token(text)?.position ?? 0 }

    /// nil for tokens of another epoch: the client begins anew. A token that another node gave out may be ahead of this one,
    /// which then catches up first.
    private func token(_ text: String?) async throws -> SyncToken? {
        guard let text else { return nil }
        guard let token = SyncToken(text) else {
            throw MatrixError.invalidParam("“\(text.prefix(100))” is not a token that this server gave out.")
        }
        guard token.epoch == epoch, try await database.reach(token.position) else { return nil }
        return token
    }

    /// A user's memberships; in memory, as long as they stay the same.
    func memberships(of user: UserNID) async throws -> KnownMemberships {
        let asOf = activity.lastMembershipChange(of: user)
        if let known = memberships.withLock({ $0[user] }), known.asOf == asOf { return known }
        let list = try await database.read { try await self.database.memberships(of: user, $0) }
        let known = KnownMemberships(asOf: asOf, list: list)
        memberships.withLock { $0.insert(known, for: user, size: 1 + list.count) }
        return known
    }

    /// Whether memberships that were read before a position was are those at the position: a room that was joined in between
    /// would else be taken for one that is known.
    func isCurrent(_ known: KnownMemberships, of user: UserNID) -> Bool {
        activity.lastMembershipChange(of: user) == known.asOf
    }
}
