import Database
import Logging
import MatrixCore
import Synchronization

/// Fetches the members of rooms that were joined without them (MSC3902, "Faster remote room joins"), also after a restart, and
/// has those wait who need to know them.
public final class PartialRooms: Sendable {
    private let federated: FederatedRooms
    private let missing: MissingEvents
    private let notifier: Notifier
    private let logger: Logger
    private var rooms: RoomRegistry { federated.rooms }
    private var database: Database { federated.database }
    private var surroundings: Surroundings { federated.context.surroundings }

    /// Milliseconds for which another server is let wait.
    private static let peerPatience: Int64 = 10_000

    /// A room that another server asks about, with all its members: without them nothing can be said of who may do what in it.
    ///
    /// - Throws: as ``FederatedRooms/room(_:for:)``.
    func room(_ roomID: RoomID, for server: ServerName) async throws -> Room {
        let room = try await federated.room(roomID, for: server)
        do { try await whole(room, patience: Self.peerPatience) } catch is MatrixError {
            try federated.checkWhole(room)
        }
        return room
    }

    /// Milliseconds until a fetch that failed is tried again: after the first time, doubled each time, up to the second; and where all
    /// have answered that they can't tell, because they have forgotten the join, or don't take this server to be in the room.
    private static let retry: Int64 = 15_000
    private static let longestRetry: Int64 = 300_000
    private static let hopelessRetry: Int64 = 3_600_000
    /// Milliseconds for which somebody waits for the members.
    private static let patience: Int64 = 60_000
    /// Servers that are asked in turn, and rooms that are fetched at the same time.
    private static let mostServers = 10
    private static let atOnce = 3
    /// How often it is looked for rooms that another node has begun with and not finished.
    private static let lookEvery: Int64 = 300_000

    private struct State {
        var waiting: [RoomNID] = []
        var running: Set<RoomNID> = []
        /// How long those rest, in milliseconds, that couldn't be fetched.
        var rests: [RoomNID: Int64] = [:]
        var isClosed = false
        /// What is done in a room that has become whole.
        var whole: @Sendable (RoomNID) -> Void = { _ in }
    }

    /// The lock protects the queue.
    private let state = Mutex(State())
    private let looks: PeriodicWork

    init(federated: FederatedRooms, missing: MissingEvents, notifier: Notifier, logger: Logger) {
        self.federated = federated
        self.missing = missing
        self.notifier = notifier
        self.logger = logger
        looks = PeriodicWork(federated.context.surroundings, every: Self.lookEvery)
    }

    /// Goes on with what was interrupted.
    ///
    /// - Parameter whole: is called for each room whose members are all there.
    func start(whole: @escaping @Sendable (RoomNID) -> Void) async throws {
        state.withLock { $0.whole = whole }
        for partial in try await database.partialRooms() { begin(partial.room) }
        looks.start { [weak self] in await self?.takeOver() }
    }

    func stop() {
        looks.stop()
        state.withLock { state in
            state.isClosed = true
            state.waiting = []
        }
    }

    /// Goes on with what another node has begun and not finished.
    private func takeOver() async {
        let old = surroundings.now() - Self.lookEvery
        for partial in (try? await database.partialRooms()) ?? [] where partial.since < old {
            let rests = state.withLock { $0.rests[partial.room] != nil }
            if !rests { begin(partial.room) }
        }
    }

    /// Begins to fetch a room's members, unless that goes on already.
    func begin(_ room: RoomNID) {
        let mayGo = state.withLock { state in
            guard !state.isClosed, !state.running.contains(room) else { return false }
            guard state.running.count < Self.atOnce else {
                if !state.waiting.contains(room) { state.waiting.append(room) }
                return false
            }
            state.running.insert(room)
            return true
        }
        if mayGo { Task { await self.work(room) } }
    }

    private func work(_ nid: RoomNID) async {
        let isDone: Bool
        var isHopeless = false
        do { isDone = try await fetch(nid) } catch {
            logger.warning("a room's members can't be fetched yet", metadata: ["reason": "\(error)"])
            isDone = false
            isHopeless = error is NobodyTells
        }
        let (next, rest, whole, isClosed) = state.withLock { state in
            state.running.remove(nid)
            let rest = min(2 * (state.rests[nid] ?? Self.retry / 2), Self.longestRetry)
            state.rests[nid] = isDone ? nil : rest
            return (state.waiting.isEmpty ? nil : state.waiting.removeFirst(), rest, state.whole, state.isClosed)
        }
        if isClosed { return }
        if isDone {
            whole(nid)
        } else {
            _ = surroundings.after(isHopeless ? Self.hopelessRetry : rest) { [weak self] in self?.begin(nid) }
        }
        if let next { begin(next) }
    }

    /// - Returns: whether the room is whole, or isn't this server's business any more.
    private func fetch(_ nid: RoomNID) async throws -> Bool {
        let room = try await rooms.room(nid)
        guard let join = room.record.partialJoin, let entry = try await database.events([join]).first else {
            return true
        }
        guard let partial = try await database.read({ try await self.database.partialRoom(nid, $0) }) else {
            return true
        }
        // Whoever has left isn't told any more. The next join begins anew.
        guard try await federated.isResident(room) else { return true }
        var servers = [partial.via]
        for server in try await federated.servers(in: room) where server != partial.via { servers.append(server) }
        var told: [EventNID: [EventID]] = [:]
        var lacking = [entry]
        while !lacking.isEmpty {
            for event in lacking {
                told[event.nid] = try await state(before: event, in: room, of: servers.prefix(Self.mostServers))
            }
            let known = told
            lacking = try await rooms.perform(in: room, alone: true) { draft in try await draft.becomeWhole(known) }
        }
        // Who was woken by the commit may have looked before this node's view of the room had moved on.
        notifier.publish([.room(nid)])
        logger.info("a room's members are all known", metadata: ["room": "\(room.roomID)"])
        return true
    }

    /// The IDs of the events of the whole state before one, from the first server that tells it.
    private func state(
        before event: StoredEvent, in room: Room, of servers: ArraySlice<ServerName>
    ) async throws -> [EventID] {
        var failure: (any Error)?
        var isHopeless = true
        for server in servers {
            do { return try await missing.fetchState(at: event.eventID, in: room, of: server) } catch let error
                as FederationFailure
            {
                failure = failure ?? error
                // Not what stands before a server that is being restarted says, but the server itself.
                isHopeless = isHopeless && ["M_FORBIDDEN", "M_NOT_FOUND"].contains(error.code)
            }
        }
        throw isHopeless ? NobodyTells() : failure ?? NobodyTells()
    }

    /// Nobody in the room knows the state before a join.
    private struct NobodyTells: Error, CustomStringConvertible {
        var description: String { "nobody in the room can tell the state before the join" }
    }

    /// Returns when all members of a room are known.
    ///
    /// - Parameter patience: milliseconds for which is waited.
    /// - Throws: an error with which clients try again, if that takes too long.
    func whole(_ room: Room, patience: Int64 = PartialRooms.patience) async throws {
        let deadline = surroundings.now() + patience
        while true {
            // Registered before it is looked: what happens from here on wakes it.
            let waiter = notifier.register(UserNID(-1), rooms: [room.nid])
            defer { notifier.remove(waiter) }
            guard try await rooms.room(room.nid).record.partialJoin != nil else { return }
            let left = deadline - surroundings.now()
            guard left > 0, !notifier.isDraining else {
                throw MatrixError(
                    .unknown, "This server has just joined the room and is still fetching its members; try again soon.",
                    status: 503)
            }
            try await waiter.wait(atMost: left, by: surroundings)
        }
    }
}
