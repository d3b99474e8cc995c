import Database
import Logging
import MatrixCore
import Synchronization

/// Tells other servers what happens here (Server-Server API, "Transactions").
///
/// Events are told by their positions: a look at what was committed since the last one hands each event to the queues of the servers in
/// its room. What has been told is noted in one place for all servers that can be reached, now and then; a server that can't be reached has
/// a row of its own. So a message costs the same however many servers hear of it; after a crash the last seconds are told again, which
/// harms nobody, because events have IDs.
///
/// On a shared database one node tells, under a lease.
final class FederationSender: Sendable {
    let rooms: RoomRegistry
    private let client: FederationClient
    let logger: Logger
    var context: RoomContext { rooms.context }
    var database: Database { rooms.database }
    private var health: PeerHealth { client.health }
    let ownServer: ServerNID

    struct State {
        var queues: [ServerName: FederationQueue] = [:]
        /// Everything up to here is in the queues; nil while another node tells.
        var handedOut: Int64?
        /// The position up to which commits were noted, and of the last one that changed somebody's devices.
        var noted: Int64
        var devicesChanged: Int64
        var lease: Lease?
        /// The position that the database has as told.
        var settled: Int64 = 0
        var isClosed = false
        var sending = 0
        var waitingToSend: [ServerName] = []
        /// The same of servers that have not taken anything lately.
        var sendingToUnproven = 0
        var unprovenWaiting: [ServerName] = []
        /// Servers that took what they were told last.
        var proven = BoundedCache<ServerName, Bool>(capacity: 50_000)
        var made = 0
        /// Messages to devices of other servers were written since the queues were told of them.
        var hasNewToDevice = false
        var timer: Surroundings.Cancel?

        /// Behind the first position, up to the second; nil if there is nothing, or another node tells.
        var toBeHandedOut: ClosedRange<Int64>? {
            guard !isClosed, let handedOut, noted > handedOut else { return nil }
            return handedOut...noted
        }
    }

    /// The lock protects the queues; nothing is awaited while it is held.
    let state: Mutex<State>
    private let news = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
    private let run: String
    private let pump = Mutex<Task<Void, Never>?>(nil)

    /// Server-Server API, "Transactions": 50 PDUs and 100 EDUs at most.
    private static let mostEvents = 50
    private static let mostEDUs = 100
    /// Bytes of events in a transaction, about.
    private static let mostBytes = 2 << 20
    /// Servers that are sent to at the same time; and of them those that may let this one wait for a minute each: strangers, and who
    /// failed last. However many of those there are, they hold up nobody who answers (A16).
    private static let atOnce = 200
    private static let mostUnproven = 100
    /// Events of one room that a server is told which has been away: it asks for the others if it wants them.
    private static let mostMissed = 100
    static let pageSize = 500
    /// Milliseconds that a transaction takes at most.
    private static let timeout: Int64 = 60_000
    private static let leaseDuration: Int64 = 15_000
    private static let interval: Int64 = 5_000

    init(rooms: RoomRegistry, client: FederationClient, logger: Logger) async throws {
        self.rooms = rooms
        self.client = client
        self.logger = logger
        run = Hex.encode(rooms.context.surroundings.randomBytes(8))
        ownServer = try await rooms.database.number(ofServer: rooms.context.serverName)
        // What was committed before anybody noted it may be anything.
        let position = rooms.database.committedPosition
        state = Mutex(State(noted: position, devicesChanged: position))
    }

    // MARK: - Beginning and ending

    func start() {
        // Nor was what was committed until somebody listened.
        let position = database.committedPosition
        state.withLock { state in
            state.noted = max(state.noted, position)
            state.devicesChanged = max(state.devicesChanged, position)
        }
        let task = Task { [weak self, stream = news.stream] in
            await self?.tick()
            for await _ in stream {
                guard let self else { return }
                await self.handOut()
            }
        }
        pump.withLock { $0 = task }
    }

    func stop() async {
        let timer: Surroundings.Cancel? = state.withLock { state in
            state.isClosed = true
            for queue in state.queues.values { queue.retry?() }
            defer { state.timer = nil }
            return state.timer
        }
        timer?()
        news.continuation.finish()
        await pump.withLock { $0.take() }?.value
        await settle()
    }

    /// Now and then: keeps or takes the lease, and notes what has been told.
    private func tick() async {
        do {
            try await takeOver()
        } catch {
            logger.error("telling other servers is delayed", metadata: ["reason": "\(error)"])
        }
        await settle()
        let cancel = context.surroundings.after(Self.interval) { [weak self] in
            guard let self else { return }
            Task { await self.tick() }
        }
        let isClosed = state.withLock { state in
            state.timer = cancel
            return state.isClosed
        }
        if isClosed { cancel() } else { news.continuation.yield() }
    }

    private func takeOver() async throws {
        let lease: Lease?
        if database.engine.isShared {
            lease = try await database.lease(
                "federation", holder: context.node, now: context.surroundings.now(), duration: Self.leaseDuration)
            guard lease != nil else {
                // Another node tells. What waits here is told by that one, as far as the database knows it.
                state.withLock { state in
                    state.handedOut = nil
                    state.lease = nil
                    state.queues = [:]
                }
                return
            }
        } else {
            lease = nil
        }
        let isNew = state.withLock { state in
            state.lease = lease
            return state.handedOut == nil
        }
        guard isNew else { return }
        let text = try await database.setting("federation_settled")
        var settled = text.flatMap { Int64(String(decoding: $0, as: UTF8.self)) }
        if settled == nil {
            // Nobody has been told anything yet, and everything from now on will be, also if this life ends before the next note.
            let position = database.committedPosition
            try await note(settled: position, lease)
            settled = position
        }
        let failing = try await database.failingDestinations()
        let awaited = try await database.serversAwaitingToDevice()
        let names = try await database.servers(failing.map(\.server) + awaited)
        let now = context.surroundings.now()
        state.withLock { state in
            state.settled = settled ?? 0
            state.handedOut = settled
            for destination in failing {
                guard let name = names[destination.server] else { continue }
                health.restore(
                    name,
                    .init(since: destination.failingSince, retry: max(destination.retry, now), reason: "it was away"))
                var queue = FederationQueue()
                queue.behind = destination.position
                queue.isNoted = true
                state.queues[name] = queue
            }
            for server in awaited {
                if let name = names[server] { state.queues[name, default: FederationQueue()].hasToDevice = true }
            }
        }
        for name in names.values { begin(name) }
    }

    /// Whether this node is the one that tells.
    var isTelling: Bool { state.withLock { $0.handedOut != nil } }

    /// The servers for which something waits.
    var waiting: [ServerName] { state.withLock { $0.queues.filter { !$0.value.isEmpty }.keys.sorted() } }

    // MARK: - What is to be told

    /// Something was committed. What happens in rooms that no other server is in isn't even looked at.
    func note(_ commit: Commit) {
        var isForDevices = false
        var isForOthers = false
        var changesDevices = false
        for topic in commit.topics {
            switch topic {
            case .destination: isForDevices = true
            case .deviceList: changesDevices = true
            case .room(let room): if rooms.inUse(room)?.others?.isEmpty != true { isForOthers = true }
            case .everything:
                isForDevices = true
                changesDevices = true
            default: continue
            }
        }
        let isForSomebody = isForDevices || isForOthers || changesDevices
        state.withLock { state in
            if isForDevices { state.hasNewToDevice = true }
            if changesDevices { state.devicesChanged = commit.position }
            // Where nothing waits before it.
            if !isForSomebody, state.handedOut == state.noted { state.handedOut = commit.position }
            state.noted = commit.position
        }
        if isForSomebody { news.continuation.yield() }
    }

    /// Tells servers something that isn't kept.
    func send(_ edu: EDU, to servers: [ServerName]) {
        let others = servers.filter { $0 != context.serverName }
        let isHolder = state.withLock { state in
            guard state.handedOut != nil else { return false }
            for server in others {
                // What passes is not kept for those who are away.
                if state.queues[server]?.behind == nil, !health.isResting(server) {
                    state.queues[server, default: FederationQueue()].add(edu)
                }
            }
            return true
        }
        if isHolder { for server in others { begin(server) } }
    }

    /// A server spoke to this one: what waits for it is sent at once.
    func hears(from server: ServerName) {
        guard health.failure(of: server) != nil else { return }
        health.lives(server)
        state.withLock { state in
            state.queues[server]?.retry?()
            state.queues[server]?.retry = nil
        }
        begin(server)
    }

    // MARK: - Sending

    enum Beginning {
        case began(isUnproven: Bool)
        /// Too many are sent to.
        case waits
        case nothingToSend
    }

    @discardableResult
    func begin(_ server: ServerName) -> Beginning {
        let beginning: Beginning = state.withLock { state in
            guard !state.isClosed, let queue = state.queues[server], !queue.isRunning, !queue.isEmpty,
                queue.retry == nil
            else { return .nothingToSend }
            let isUnproven = state.proven[server] != true
            if isUnproven, state.sendingToUnproven >= Self.mostUnproven {
                if !state.unprovenWaiting.contains(server) { state.unprovenWaiting.append(server) }
                return .waits
            }
            guard state.sending < Self.atOnce else {
                if !state.waitingToSend.contains(server) { state.waitingToSend.append(server) }
                return .waits
            }
            state.sending += 1
            if isUnproven { state.sendingToUnproven += 1 }
            state.queues[server]?.isRunning = true
            return .began(isUnproven: isUnproven)
        }
        if case .began(let isUnproven) = beginning { Task { await self.work(server, isUnproven: isUnproven) } }
        return beginning
    }

    /// Sends what waits for a server until there is nothing more, or it fails.
    private func work(_ server: ServerName, isUnproven: Bool) async {
        while await sendNext(server) {}
        state.withLock { state in
            state.sending -= 1
            if isUnproven { state.sendingToUnproven -= 1 }
            state.queues[server]?.isRunning = false
            if let queue = state.queues[server], queue.isEmpty, !queue.isNoted { state.queues[server] = nil }
        }
        beginFirst(of: \.waitingToSend)
        if isUnproven { beginFirst(of: \.unprovenWaiting) }
        // What came while this one was ending.
        begin(server)
    }

    /// Begins with the first of those who wait that has something to be sent.
    private func beginFirst(of waiting: WritableKeyPath<State, [ServerName]> & Sendable) {
        while let next = state.withLock({ state -> ServerName? in
            state[keyPath: waiting].isEmpty ? nil : state[keyPath: waiting].removeFirst()
        }) {
            if case .nothingToSend = begin(next) { continue }
            return
        }
    }

    /// - Returns: whether to go on.
    private func sendNext(_ server: ServerName) async -> Bool {
        if let failure = health.failure(of: server), failure.retry > context.surroundings.now() {
            await rest(server, failure)
            return false
        }
        do {
            while try await lookUpMissed(server) {}
            guard let transaction = try await nextTransaction(for: server) else {
                try await recovered(server)
                return false
            }
            try await send(transaction, to: server)
            return true
        } catch let failure as FederationFailure {
            await failed(server, failure)
            return false
        } catch {
            logger.error("telling a server is delayed", metadata: ["server": "\(server)", "reason": "\(error)"])
            await rest(server, health.failed(server, "\(error)"))
            return false
        }
    }

    private func send(_ transaction: FederationTransaction, to server: ServerName) async throws {
        let path = FederationClient.path("/_matrix/federation/v1/send", transaction.id)
        do {
            let answer = try await client.put(path, transaction.body, to: server, timeout: Self.timeout)
            for (event, result) in answer["pdus"]?.members.prefix(Self.mostEvents).map({ $0 }) ?? [] {
                if let error = result["error"]?.string {
                    logger.debug(
                        "a server doesn't take an event",
                        metadata: ["server": "\(server)", "event": "\(event)", "reason": "\(error.shortened(to: 200))"])
                }
            }
        } catch let failure as FederationFailure {
            // One that the server will never take must not hold up what comes after it (A10).
            guard let status = failure.status, [400, 413, 422].contains(status) else { throw failure }
            logger.warning(
                "a server refuses a transaction",
                metadata: [
                    "server": "\(server)", "reason": "\(failure.reason)", "events": "\(transaction.events.count)",
                ])
            if transaction.events.count + transaction.edus > 1 {
                try await sendSingly(transaction, to: server)
            }
        }
        if let last = transaction.toDevice {
            var write = Write()
            write.dropToDevice(to: try await database.number(ofServer: server), upTo: last)
            if let lease = state.withLock({ $0.lease }) { write.require(lease) }
            try await database.write(write)
        }
        state.withLock { state in
            state.queues[server]?.frozen = nil
            state.proven.insert(true, for: server, size: 1)
        }
    }

    private func sendSingly(_ transaction: FederationTransaction, to server: ServerName) async throws {
        for event in transaction.events {
            let single = try await make([event], first: nil, [], nil)
            do {
                _ = try await client.put(
                    FederationClient.path("/_matrix/federation/v1/send", single.id), single.body, to: server,
                    timeout: Self.timeout)
            } catch let failure as FederationFailure {
                guard let status = failure.status, [400, 413, 422].contains(status) else { throw failure }
                logger.warning(
                    "a server refuses an event", metadata: ["server": "\(server)", "reason": "\(failure.reason)"])
            }
        }
    }

    /// The transaction that is to be sent next: the one that was not taken, or what waits.
    private func nextTransaction(for server: ServerName) async throws -> FederationTransaction? {
        if let frozen = state.withLock({ $0.queues[server]?.frozen }) { return frozen }
        var toDevice: [Database.OutgoingToDevice] = []
        if state.withLock({ $0.queues[server]?.hasToDevice ?? false }) {
            state.withLock { $0.queues[server]?.hasToDevice = false }
            toDevice = try await database.outgoingToDevice(
                to: try await database.number(ofServer: server), limit: Self.mostEDUs)
            if toDevice.count == Self.mostEDUs { state.withLock { $0.queues[server]?.hasToDevice = true } }
        }
        let room = Self.mostEDUs - toDevice.count
        let (events, edus) = state.withLock { state in
            guard var queue = state.queues[server] else { return ([Database.OutgoingEvent](), [EDU]()) }
            let events = Array(queue.events.prefix(Self.mostEvents))
            let edus = Array(queue.edus.prefix(room))
            queue.events.removeFirst(events.count)
            queue.edus.removeFirst(edus.count)
            queue.taken = FederationQueue.first(events, edus)
            state.queues[server] = queue
            return (events, edus)
        }
        if events.isEmpty, edus.isEmpty, toDevice.isEmpty { return nil }
        do {
            let contents =
                edus.map(\.json) + toDevice.map { ["edu_type": "m.direct_to_device", "content": .raw($0.content)] }
            let transaction = try await make(
                events.map(\.event), first: FederationQueue.first(events, edus), contents, toDevice.last)
            state.withLock { state in
                state.queues[server]?.frozen = transaction
                state.queues[server]?.taken = nil
            }
            return transaction
        } catch {
            state.withLock { state in
                state.queues[server]?.events.insert(contentsOf: events, at: 0)
                state.queues[server]?.edus.insert(contentsOf: edus, at: 0)
                state.queues[server]?.taken = nil
                if !toDevice.isEmpty { state.queues[server]?.hasToDevice = true }
            }
            throw error
        }
    }

    private func make(
        _ events: [EventNID], first: Int64?, _ edus: [JSON], _ toDevice: Database.OutgoingToDevice?
    ) async throws -> FederationTransaction {
        let stored = try await database.events(events)
        var writer = JSONWriter(capacity: stored.reduce(512) { $0 + $1.json.count + 1 })
        writer.beginObject()
        writer.key("edus")
        writer.beginArray()
        for edu in edus {
            // One that has no canonical form doesn't keep the others (A10).
            do { writer.raw(try edu.canonical()) } catch {
                logger.error(
                    "what waits for another server can't be sent, and is dropped", metadata: ["reason": "\(error)"])
            }
        }
        writer.endArray()
        writer.key("origin")
        writer.string(context.serverName.string)
        writer.key("origin_server_ts")
        writer.integer(context.surroundings.now())
        writer.key("pdus")
        writer.beginArray()
        for event in stored { writer.raw(event.json) }
        writer.endArray()
        writer.endObject()
        let number = state.withLock { state in
            state.made += 1
            return state.made
        }
        return FederationTransaction(
            id: "\(run)-\(number)", body: writer.bytes, first: first, events: events, edus: edus.count,
            toDevice: toDevice)
    }

    /// What a server that was away has missed, a part of it at a time: the newest events of each room that it is in, and whose devices
    /// have changed.
    ///
    /// - Returns: whether there was something to look for.
    private func lookUpMissed(_ server: ServerName) async throws -> Bool {
        guard
            let (behind, upTo) = state.withLock({ state -> (Int64, Int64)? in
                guard let queue = state.queues[server], queue.isToLookUp, let behind = queue.behind else { return nil }
                return state.handedOut.map { (behind, $0) }
            })
        else { return false }
        let nid = try await database.number(ofServer: server)
        let (found, users, end) = try await database.read { reader in
            let users = try await self.database.localUsersWithChangedDevices(
                after: behind, upTo: upTo, limit: Self.pageSize, reader)
            let end = users.count < Self.pageSize ? upTo : users[users.count - 1].position
            let rooms = try await self.database.rooms(everWithMembersOf: nid, reader)
            let found = try await self.database.newestOutgoingEvents(
                in: rooms, after: behind, upTo: end, limit: Self.mostMissed, reader)
            return (found, users, end)
        }
        // Of rooms that it is out of now, it has to hear of that.
        var events: [Database.OutgoingEvent] = []
        for event in found where try await destinations(of: event).contains(nid) { events.append(event) }
        // Those who share no room with it are told nothing.
        let updates = try await deviceUpdates(of: users).filter { $0.servers.contains(server) }
        state.withLock { state in
            guard var queue = state.queues[server], queue.behind == behind else { return }
            queue.edus += updates.map(\.edu)
            queue.events = events.sorted { $0.position < $1.position }
            queue.hasToDevice = true
            // What was handed out meanwhile hasn't come into the queue.
            queue.behind = state.handedOut == end ? nil : end
            state.queues[server] = queue
        }
        return true
    }

    /// Milliseconds until a server is told what this one had too much to do for.
    private static let busyPause: Int64 = 1_000

    private func failed(_ server: ServerName, _ failure: FederationFailure) async {
        if failure.isBusy {
            let now = context.surroundings.now()
            return await rest(server, .init(since: now, retry: now + Self.busyPause, reason: failure.reason))
        }
        state.withLock { $0.proven.remove(server) }
        // The client has noted servers that can't be reached; one that answers with errors rests as well.
        let resting = health.failure(of: server) ?? health.failed(server, failure.reason)
        logger.debug("a server can't be told", metadata: ["server": "\(server)", "reason": "\(failure.reason)"])
        await rest(server, resting)
    }

    /// Tries again when the server has rested; the database notes it for the case that this process ends before.
    private func rest(_ server: ServerName, _ failure: PeerHealth.Failure) async {
        let now = context.surroundings.now()
        let cancel = context.surroundings.after(max(failure.retry - now, 100)) { [weak self] in
            guard let self else { return }
            self.state.withLock { $0.queues[server]?.retry = nil }
            self.begin(server)
        }
        let owed: Int64? = state.withLock { state in
            state.queues[server]?.retry = cancel
            guard let queue = state.queues[server] else { return nil }
            return queue.owedFrom.map { $0 - 1 } ?? state.handedOut
        }
        guard let owed else { return }
        do {
            var write = Write()
            write.put(
                Database.FailingDestination(
                    server: try await database.number(ofServer: server), position: owed, failingSince: failure.since,
                    retry: failure.retry))
            try await database.write(write)
            // Only now others may be noted as told beyond it.
            state.withLock { $0.queues[server]?.isNoted = true }
        } catch {
            logger.error("noting a server that fails failed", metadata: ["server": "\(server)", "reason": "\(error)"])
        }
    }

    private func recovered(_ server: ServerName) async throws {
        guard state.withLock({ $0.queues[server]?.isNoted ?? false }) else { return }
        var write = Write()
        write.dropFailing(try await database.number(ofServer: server))
        try await database.write(write)
        state.withLock { $0.queues[server]?.isNoted = false }
    }

    /// Notes up to where all servers that can be reached have been told.
    private func settle() async {
        let (position, lease) = state.withLock { state -> (Int64?, Lease?) in
            guard let handedOut = state.handedOut else { return (nil, nil) }
            let owed = state.queues.values.filter { !$0.isNoted }.compactMap(\.owedFrom).min()
            let position = min(handedOut, owed.map { $0 - 1 } ?? handedOut)
            return (position > state.settled ? position : nil, state.lease)
        }
        guard let position else { return }
        do {
            try await note(settled: position, lease)
            state.withLock { $0.settled = position }
        } catch {
            logger.debug("noting what was told failed", metadata: ["reason": "\(error)"])
        }
    }

    private func note(settled position: Int64, _ lease: Lease?) async throws {
        var write = Write()
        write.settleFederation(at: position)
        if let lease { write.require(lease) }
        try await database.write(write)
    }
}
