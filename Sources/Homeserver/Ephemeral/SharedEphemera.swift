import Database
import Logging
import MatrixCore
import Synchronization

/// What other nodes on the database hear of typing and receipts. Who types is noted here as well; and where this node is the one that
/// tells other servers, they are told of both. (Presence is written down, and each node's ``PresenceService`` tells it.)
final class SharedEphemera: Sendable {
    private enum News: Sendable {
        case typing(RoomNID, UserNID, Int64)
        /// Receipts in a room moved between two positions.
        case receipts(RoomNID, after: Int64, upTo: Int64)
    }

    private let rooms: RoomRegistry
    private let typing: Typing
    private let ephemera: OutgoingEphemera
    private let logger: Logger
    private var database: Database { rooms.database }
    /// The position up to which commits were noted. They come one after another.
    private let noted: Atomic<Int64>
    private let news: (stream: AsyncStream<News>, continuation: AsyncStream<News>.Continuation)
    /// The lock protects the reference.
    private let work = Mutex<Task<Void, Never>?>(nil)

    /// News that wait. What passes may get lost: where there are more, the oldest do.
    private static let most = 1_000

    init(rooms: RoomRegistry, typing: Typing, ephemera: OutgoingEphemera, logger: Logger) {
        self.rooms = rooms
        self.typing = typing
        self.ephemera = ephemera
        self.logger = logger
        noted = Atomic(rooms.database.committedPosition)
        news = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(Self.most))
    }

    func start() {
        let task = Task { [weak self, stream = news.stream] in
            for await news in stream {
                guard let self else { return }
                do { try await take(news) } catch {
                    logger.debug("what another node heard is not told", metadata: ["reason": "\(error)"])
                }
            }
        }
        work.withLock { $0 = task }
    }

    func stop() async {
        news.continuation.finish()
        await work.withLock { $0.take() }?.value
    }

    /// Something was committed. Called on the engine's thread, in the order of positions.
    func note(_ commit: Commit) {
        let before = noted.exchange(commit.position, ordering: .relaxed)
        guard commit.isElsewhere else { return }
        for topic in commit.topics {
            switch topic {
            case .typing(let room, let user, let time): news.continuation.yield(.typing(room, user, time))
            case .receipts(let room):
                news.continuation.yield(.receipts(room, after: before, upTo: commit.position))
            default: continue
            }
        }
    }

    private func take(_ news: News) async throws {
        switch news {
        case .typing(let nid, let number, let time):
            guard let user = try await database.user(number) else { return }
            typing.note(user, in: nid, for: time > 0 ? time : nil)
            guard isOurs(user), ephemera.isTelling else { return }
            try await ephemera.tellTyping(time > 0, in: try await rooms.room(nid), by: user)
        case .receipts(let nid, let after, let upTo):
            guard ephemera.isTelling else { return }
            let receipts = try await database.read {
                try await self.database.receipts(in: nid, after: after, upTo: upTo, $0)
            }
            let users = try await database.users(receipts.map(\.user))
            let room = try await rooms.room(nid)
            for receipt in receipts where receipt.type == "m.read" {
                guard let user = users[receipt.user], isOurs(user), let event = EventID(receipt.eventID) else {
                    continue
                }
                try await ephemera.tellReceipt(
                    on: event, thread: receipt.thread.isEmpty ? nil : receipt.thread, at: receipt.timestamp, in: room,
                    by: user)
            }
        }
    }

    private func isOurs(_ user: UserID) -> Bool { user.server == rooms.context.serverName }
}
