import Logging
import MatrixCore
import Synchronization

/// The server's database: an engine, what is known of it in memory, and (in extensions, a file per subject) the
/// questions that the services ask.
public final class Database: Sendable {
    public let engine: any Engine
    public let stateRows: StateRows
    public let storedEvents: EventCache
    let users: NumberedIdentifiers<UserID>
    let servers: NumberedIdentifiers<ServerName>
    let eventTypes: NumberedIdentifiers<EventType>
    let stateKeys: NumberedIdentifiers<StateKey>
    /// Places that were seen taken: they stay so, and those behind what authorises every member are looked for with each of them.
    /// The lock protects the cache; nothing is awaited while it is held.
    let takenPlaces = Mutex(BoundedCache<ChainPlace, Bool>(capacity: 20_000))
    private let eventNumbers = NumberSource(name: "event", blockSize: 1_000)
    private let chainNumbers = NumberSource(name: "chain", blockSize: 1_000)
    let backfillNumbers = NumberSource(name: "backfill", blockSize: 1_000)
    private let roomNumbers = NumberSource(name: "room", blockSize: 50)

    /// - Parameter cacheBytes: what the caches of events and states may take.
    public init(engine: any Engine, cacheBytes: Int = 48 << 20) {
        self.engine = engine
        stateRows = StateRows(capacity: cacheBytes / 4)
        storedEvents = EventCache(capacity: cacheBytes / 2)
        users = NumberedIdentifiers(capacity: 50_000)
        servers = NumberedIdentifiers(capacity: 20_000)
        eventTypes = NumberedIdentifiers(capacity: 10_000)
        stateKeys = NumberedIdentifiers(capacity: 50_000)
        let storedEvents = storedEvents
        engine.onCommit(
            CommitObserver { commit in
                for topic in commit.topics {
                    switch topic {
                    case .event(let event): storedEvents.outdate(event)
                    case .everything: storedEvents.outdateAll()
                    default: break
                    }
                }
            })
    }

    /// Waits until this node has caught up with a position that another one gave out; false if nobody did.
    public func reach(_ position: Int64) async throws -> Bool { try await engine.reach(position) }

    /// Everything up to this position is visible to reads that begin now.
    public var committedPosition: Int64 { engine.committedPosition }

    public func read<T: Sendable>(_ body: (any Reader) async throws -> T) async throws -> T {
        try await engine.read(body)
    }

    /// Asks once; see ``Engine/readOnce(_:)``.
    public func readOnce<T: Sendable>(_ body: (any Reader) async throws -> T) async throws -> T {
        try await engine.readOnce(body)
    }

    @discardableResult
    public func write(_ write: Write) async throws -> WriteResult { try await engine.write(write) }

    /// Numbers for new events: the first of `count` consecutive ones.
    public func newEventNumbers(_ count: Int) async throws -> EventNID {
        EventNID(try await eventNumbers.take(Int64(count), engine))
    }

    func newChainNumber() async throws -> Int64 { try await chainNumbers.take(1, engine) }

    public func newRoomNumber() async throws -> RoomNID { RoomNID(try await roomNumbers.take(1, engine)) }

    public func close() async { await engine.close() }

    private static let probe = Statement("SELECT 1 FROM schema_version")

    /// Whether the database answers.
    public func answers() async -> Bool {
        do { return try await readOnce { try await $0.first(Self.probe, []) { $0.integer(0) } } == 1 } catch {
            return false
        }
    }
}
