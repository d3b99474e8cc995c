import Database
import MatrixCore

/// Which threads people follow (MSC4306, MSC4308).
public final class ThreadSubscriptionService: Sendable {
    private let rooms: RoomRegistry
    private var database: Database { rooms.database }

    init(rooms: RoomRegistry) {
        self.rooms = rooms
    }

    static let none = MatrixError.notFound("There is no such thread, or you may not read it.")

    /// The root of a thread that a member may see.
    private func root(_ eventID: EventID, in roomID: RoomID, _ requester: Requester) async throws -> StoredEvent {
        guard let (room, access) = try? await rooms.readable(roomID, by: requester), access.isMember,
            let stored = try await database.event(eventID), stored.room == room.nid
        else { throw Self.none }
        let isVisible = try await database.read { reader in
            var visibility = try await EventVisibility(
                rooms.context, room: room, user: requester.userID, nid: requester.nid, access: access, reader: reader)
            return try await visibility.allows(stored)
        }
        guard isVisible else { throw Self.none }
        return stored
    }

    private func subscription(to root: StoredEvent, of requester: Requester) async throws -> ThreadSubscription? {
        try await database.read { reader in
            try await self.database.threadSubscription(of: requester.nid, to: root.nid, in: root.room, reader)
        }
    }

    /// Subscribes to a thread.
    ///
    /// - Parameter cause: the event because of which a client does it of itself; nil if the user wants it.
    /// - Throws: `M_NOT_FOUND`; `M_NOT_IN_THREAD` if the cause is not of the thread; `M_CONFLICTING_UNSUBSCRIPTION` if the user
    ///   has unsubscribed since the cause.
    public func subscribe(
        to eventID: EventID, in roomID: RoomID, because cause: EventID?, by requester: Requester
    ) async throws {
        let root = try await root(eventID, in: roomID, requester)
        if let cause { return try await subscribe(to: root, because: cause, by: requester) }
        // What the user wants once more is no news.
        if let known = try await subscription(to: root, of: requester), known.isSubscribed, !known.isAutomatic {
            return
        }
        var write = Write()
        write.setThreadSubscription(of: requester.nid, to: root.nid, in: root.room, isSubscribed: true)
        try await database.write(write)
    }

    /// How often it is decided anew because another of the user's devices was faster.
    private static let attempts = 5

    /// Subscribes because a client does it of itself (MSC4306, "Server-side automatic subscription ordering"). The order is that of
    /// the positions at which the cause came and the user unsubscribed.
    private func subscribe(
        to root: StoredEvent, because cause: EventID, by requester: Requester
    ) async throws {
        let version = try await rooms.room(root.room).version
        guard let stored = try await database.event(cause), stored.room == root.room, let position = stored.position,
            let (parent, type) = RoomDraft.relation(of: try rooms.context.parse(stored, version)),
            type == "m.thread", parent == root.eventID
        else {
            throw MatrixError(
                .init("IO.ELEMENT.MSC4306.M_NOT_IN_THREAD", status: 400), "The cause is not an event of the thread.")
        }
        for attempt in 1... {
            let known = try await subscription(to: root, of: requester)
            // What the user wanted isn't undone by a client.
            if let known, known.isSubscribed { return }
            if let known, known.position > position {
                throw MatrixError(
                    .init("IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION", status: 409),
                    "You have unsubscribed from the thread since.")
            }
            var write = Write()
            write.subscribeAutomatically(requester.nid, to: root.nid, in: root.room, from: known)
            do { try await database.write(write) } catch DatabaseError.conflict where attempt < Self.attempts {
                continue
            }
            return
        }
    }

    /// Ends a subscription, if there is one.
    public func unsubscribe(from eventID: EventID, in roomID: RoomID, by requester: Requester) async throws {
        let root = try await root(eventID, in: roomID, requester)
        // Once more counts, too: what came in between doesn't subscribe the user again.
        guard try await subscription(to: root, of: requester) != nil else { return }
        var write = Write()
        write.setThreadSubscription(of: requester.nid, to: root.nid, in: root.room, isSubscribed: false)
        try await database.write(write)
    }

    /// Whether the subscription to a thread is automatic.
    ///
    /// - Throws: `M_NOT_FOUND` if there is none.
    public func isAutomatic(_ eventID: EventID, in roomID: RoomID, for requester: Requester) async throws -> Bool {
        let root = try await root(eventID, in: roomID, requester)
        guard let known = try await subscription(to: root, of: requester), known.isSubscribed else {
            throw MatrixError.notFound("You are not subscribed to the thread.")
        }
        return known.isAutomatic
    }

    /// Changes of subscriptions, newest first (MSC4308, "Companion endpoint").
    ///
    /// - Parameters:
    ///   - from: a token of a page or of a sync, behind which it goes on; nil: the newest.
    ///   - to: the position of a sync up to which they are wanted.
    public func page(from: String?, to: String?, limit: Int, for requester: Requester) async throws -> JSON {
        let upTo = try from.map { try position($0) } ?? database.committedPosition
        let after = try to.map { try position($0) } ?? 0
        return try await database.read { reader in
            try await ThreadSubscriptionPage.read(
                of: requester.nid, after: after, upTo: upTo, limit: min(limit, 100), includesEnded: true, rooms, reader
            ).json(endedBy: "end")
        }
    }

    private func position(_ text: String) throws -> Int64 {
        if let position = ThreadSubscriptionPage.position(of: text) ?? SyncToken.position(of: text) { return position }
        throw MatrixError.invalidParam("This token is not one that this server gave out.")
    }
}

/// Some changes of a user's subscriptions to threads.
struct ThreadSubscriptionPage {
    private var subscribed: [String: JSON] = [:]
    private var unsubscribed: [String: JSON] = [:]
    /// Where going back goes on; nil if there is nothing before.
    private var before: Int64?

    var isEmpty: Bool { subscribed.isEmpty && unsubscribed.isEmpty && before == nil }

    static func position(of text: String) -> Int64? {
        guard text.hasPrefix("th1-") else { return nil }
        return Int64(text.dropFirst(4))
    }

    /// - Parameter includesEnded: whether those that ended are told: to who has heard of none, they are no news.
    static func read(
        of user: UserNID, after: Int64, upTo: Int64, limit: Int, includesEnded: Bool, _ rooms: RoomRegistry,
        _ reader: any Reader
    ) async throws -> ThreadSubscriptionPage {
        let database = rooms.database
        var found = try await database.threadSubscriptions(
            of: user, after: after, upTo: upTo, limit: limit + 1, includesEnded: includesEnded, reader)
        var page = ThreadSubscriptionPage()
        if found.count > limit {
            found.removeLast()
            page.before = found.last.map { $0.position - 1 }
        }
        let roots = Dictionary(
            try await database.events(found.map(\.root), reader).map { ($0.nid, $0.eventID.string) }
        ) { $1 }
        for one in found {
            guard let root = roots[one.root] else { continue }
            let room = try await rooms.room(one.room).roomID.string
            let stamp = JSON.integer(one.position)
            if one.isSubscribed {
                var threads = page.subscribed[room] ?? [:]
                threads[root] = ["automatic": .bool(one.isAutomatic), "bump_stamp": stamp]
                page.subscribed[room] = threads
            } else {
                var threads = page.unsubscribed[room] ?? [:]
                threads[root] = ["bump_stamp": stamp]
                page.unsubscribed[room] = threads
            }
        }
        return page
    }

    /// - Parameter name: what the token behind the page is called.
    func json(endedBy name: String) -> JSON {
        func object(_ rooms: [String: JSON]) -> JSON {
            .object(JSONObject(rooms.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }))
        }
        var json: JSON = ["subscribed": object(subscribed), "unsubscribed": object(unsubscribed)]
        if let before { json[name] = .string("th1-\(before)") }
        return json
    }
}
