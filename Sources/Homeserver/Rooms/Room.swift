import Database
import MatrixCore
import Synchronization

/// A room that is in use on this node: what is known of its present, and the queue through which all that is written into
/// it goes.
///
/// Jobs are done one after another. While one batch is being committed, the jobs that arrive wait together and become the
/// next batch: each is built upon the one before, all go into one write, and all are answered by one sync of the disk.
/// Nothing is ever built upon what is not committed, except within a batch, which is committed whole.
public final class Room: Sendable {
    public let nid: RoomNID
    public let roomID: RoomID

    /// The lock protects the queue and the record; nothing is awaited while it is held.
    private let state: Mutex<State>

    private struct State {
        var record: RoomRecord
        var version: RoomVersion
        /// Counts what other nodes have done in the room, and how far the record knows of it.
        var changesElsewhere = 0
        var knownChanges = 0
        /// ``Engine/solitude`` from before the record was read last.
        var solitude: Int?
        var readers = Readers()
        var isBusy = false
        var waiting: [RoomJob] = []
        var audience = Audience()

        /// The versions only go up: what was read before somebody wrote doesn't undo it.
        mutating func take(_ new: RoomRecord) {
            if new.timelineVersion >= record.timelineVersion, new.stateVersion >= record.stateVersion {
                record = new
                if !version.identifier.hasSameBytes(as: new.version), let proven = RoomVersion.named(new.version) {
                    version = proven
                }
            }
        }
    }

    /// Members who have been seen to be in the room, as of one state of it and one ``Engine/solitude``.
    private struct Readers {
        var stateVersion: Int64 = -1
        var solitude = -1
        var memberships: [UserNID: RoomMembership] = [:]

        /// They are asked for again when there are more.
        static let most = 5_000
    }

    /// Whom what is sent into the room concerns: seen once, and valid until somebody of another server comes or goes.
    private struct Audience {
        var others: [ServerNID]?
        /// Counts what may have changed it.
        var changes = 0
        /// Writes under way that change it.
        var underWay = 0

        mutating func change() {
            others = nil
            changes += 1
        }
    }

    init(record: RoomRecord, version: RoomVersion) {
        nid = record.nid
        roomID = record.roomID
        state = Mutex(State(record: record, version: version))
    }

    /// Of a room that this server was never in it is what an invitation claims.
    public var version: RoomVersion { state.withLock { $0.version } }

    /// The room as it was committed last.
    var record: RoomRecord { state.withLock { $0.record } }

    /// Whether this server is or was in it, and not only invited.
    var wasEntered: Bool { !record.extremities.isEmpty }

    func moved(to record: RoomRecord) { state.withLock { $0.take(record) } }

    /// Another node has done something in the room.
    func outdate() {
        state.withLock { state in
            state.changesElsewhere += 1
            state.audience.change()
        }
    }

    /// The other servers in the room, those with most members first; nil if nobody has looked yet.
    var others: [ServerNID]? { state.withLock { $0.audience.others } }

    /// What to give to ``found(_:at:)``; to be asked for before one looks.
    var audienceChanges: Int { state.withLock { $0.audience.changes } }

    /// Somebody has looked which other servers are in the room; counts if nothing has changed since.
    func found(_ others: [ServerNID], at changes: Int) {
        state.withLock { state in
            if state.audience.changes == changes, state.audience.underWay == 0 { state.audience.others = others }
        }
    }

    /// Somebody of another server may have come or gone.
    func changeAudience() { state.withLock { $0.audience.change() } }

    /// A write begins by which somebody of another server comes or goes.
    func beginAudienceChange() {
        state.withLock { state in
            state.audience.change()
            state.audience.underWay += 1
        }
    }

    func endAudienceChange() {
        state.withLock { state in
            state.audience.change()
            state.audience.underWay -= 1
        }
    }

    /// The changes elsewhere that the record may not know of; nil if it is up to date.
    var unknownChanges: Int? {
        state.withLock { $0.changesElsewhere == $0.knownChanges ? nil : $0.changesElsewhere }
    }

    /// Takes over what was read after `changes` had been told, under a ``Engine/solitude``.
    func refreshed(_ record: RoomRecord, changes: Int, solitude: Int? = nil) {
        state.withLock { state in
            state.take(record)
            state.knownChanges = max(state.knownChanges, changes)
            if let solitude { state.solitude = solitude }
        }
    }

    /// The membership of a user who was seen to be in the room, if nothing has happened since that could have changed it.
    func knownMembership(of user: UserNID, under solitude: Int) -> RoomMembership? {
        state.withLock { state in
            guard state.readers.solitude == solitude, state.readers.stateVersion == state.record.stateVersion,
                state.changesElsewhere == state.knownChanges
            else { return nil }
            return state.readers.memberships[user]
        }
    }

    /// Notes that a user is in the room, as was read after the state was of that version, and under that solitude.
    func note(_ membership: RoomMembership, of user: UserNID, asOf stateVersion: Int64, under solitude: Int) {
        state.withLock { state in
            guard membership.membership == .join, stateVersion == state.record.stateVersion else { return }
            if state.readers.stateVersion != stateVersion || state.readers.solitude != solitude
                || state.readers.memberships.count >= Readers.most
            {
                state.readers = Readers(stateVersion: stateVersion, solitude: solitude)
            }
            state.readers.memberships[user] = membership
        }
    }

    /// Whether the record was read under a solitude, and nobody else has done anything since.
    func isKnown(under solitude: Int) -> Bool {
        state.withLock { $0.solitude == solitude && $0.changesElsewhere == $0.knownChanges }
    }

    /// Jobs of a batch at most, and jobs that may wait.
    private static let jobsPerBatch = 50
    private static let mostWaiting = 5_000

    enum Turn: Sendable {
        /// The room is free: do this job, and all others that wait.
        case lead
        /// Somebody else has done the job.
        case done
    }

    /// Queues a job and waits for its turn.
    ///
    /// - Throws: `M_LIMIT_EXCEEDED` when too many are waiting: one room may not hold up the server.
    func enter(_ job: RoomJob) async throws -> Turn {
        try await withCheckedThrowingContinuation { continuation in
            let turn: Result<Turn, any Error>? = state.withLock { state in
                if !state.isBusy {
                    state.isBusy = true
                    return .success(.lead)
                }
                guard state.waiting.count < Self.mostWaiting else {
                    return .failure(MatrixError.limitExceeded(retryAfterMS: 1_000))
                }
                job.continuation = continuation
                state.waiting.append(job)
                return nil
            }
            if let turn { continuation.resume(with: turn) }
        }
    }

    /// The jobs that a leader does together with its own.
    func takeWaiting() -> [RoomJob] {
        state.withLock { state in
            let taken = Array(state.waiting.prefix(Self.jobsPerBatch - 1))
            state.waiting.removeFirst(taken.count)
            return taken
        }
    }

    /// The leader is through: the first of those that wait leads next.
    func leave() {
        let next: RoomJob? = state.withLock { state in
            if state.waiting.isEmpty {
                state.isBusy = false
                return nil
            }
            return state.waiting.removeFirst()
        }
        next?.continuation?.resume(returning: .lead)
    }
}

/// A piece of work on a room. It may be run several times: whenever somebody else has moved the room meanwhile.
///
/// Used by one task at a time: that of the leader, and after its turn that of whoever queued it.
final class RoomJob: @unchecked Sendable {
    let run: (inout RoomDraft) async throws -> Void
    /// Whether it wants a write of its own.
    let isAlone: Bool
    /// Where the events that it has added stand in the draft.
    var added = 0..<0
    /// Why it failed; nil if it didn't.
    var failure: (any Error)?
    var continuation: CheckedContinuation<Room.Turn, any Error>?

    init(isAlone: Bool, run: @escaping (inout RoomDraft) async throws -> Void) {
        self.isAlone = isAlone
        self.run = run
    }
}
