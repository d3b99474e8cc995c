import Database
import MatrixCore

/// Receipts, read markers and typing: what members show each other besides messages.
public final class ReceiptService: Sendable {
    let rooms: RoomRegistry
    let typing: Typing
    var database: Database { rooms.database }

    private let ephemera: OutgoingEphemera

    init(rooms: RoomRegistry, typing: Typing, ephemera: OutgoingEphemera) {
        self.ephemera = ephemera
        self.rooms = rooms
        self.typing = typing
    }

    private func joined(_ roomID: RoomID, _ requester: Requester) async throws -> Room {
        let (room, access) = try await rooms.readable(roomID, by: requester)
        guard access.isMember else { throw MembershipService.notInRoom }
        return room
    }

    /// Moves a receipt (Client-Server API, "Receipts") or the read marker (`m.fully_read`, which is account data).
    ///
    /// - Parameter thread: `main` or the root of a thread; nil for a receipt of no thread.
    public func setReceipt(
        _ type: String, on eventID: EventID, thread: String?, in roomID: RoomID, by requester: Requester
    ) async throws {
        let room = try await joined(roomID, requester)
        if let thread {
            guard thread.utf8.count <= 255 else { throw MatrixError.invalidParam("“thread_id” has at most 255 bytes.") }
            try await check(eventID, isIn: thread, room)
        }
        var write = Write()
        let now = rooms.context.surroundings.now()
        try await add(type, eventID, thread, at: now, room, requester, to: &write)
        if write.isEmpty { return }
        try await database.write(write)
        if type == "m.read" {
            try await ephemera.tellReceipt(on: eventID, thread: thread, at: now, in: room, by: requester.userID)
        }
    }

    /// How far an event may be from the one that is in a thread: an edit of a reaction to a threaded message is three away.
    private static let mostSteps = 3

    /// A threaded receipt is for an event of that thread (Client-Server API, "Threaded read receipts"). An event that this server
    /// doesn't know may be one.
    ///
    /// - Throws: `M_INVALID_PARAM`.
    private func check(_ eventID: EventID, isIn thread: String, _ room: Room) async throws {
        if thread.hasSameBytes(as: eventID.string) { return }
        var step: EventID? = eventID
        var root: EventID?
        for _ in 0..<Self.mostSteps {
            guard let id = step else { break }
            guard let stored = try await database.event(id), stored.room == room.nid else { return }
            // What is redacted doesn't tell any more what it referred to.
            if stored.redactedBy != nil { return }
            let relation = RoomDraft.relation(of: try rooms.context.parse(stored, room.version))
            if let (parent, type) = relation, type == "m.thread" {
                root = parent
                break
            }
            step = relation?.0
        }
        guard (root?.string ?? "main").hasSameBytes(as: thread) else {
            throw MatrixError.invalidParam("The event is not in the thread that “thread_id” names.")
        }
    }

    /// Moves the read marker and receipts together (`POST /rooms/{roomId}/read_markers`).
    public func setReadMarkers(
        fullyRead: EventID?, read: EventID?, readPrivate: EventID?, in roomID: RoomID, by requester: Requester
    ) async throws {
        let room = try await joined(roomID, requester)
        var write = Write()
        let now = rooms.context.surroundings.now()
        if let fullyRead { try await add("m.fully_read", fullyRead, nil, at: now, room, requester, to: &write) }
        var moves = false
        if let read { moves = try await add("m.read", read, nil, at: now, room, requester, to: &write) }
        if let readPrivate { try await add("m.read.private", readPrivate, nil, at: now, room, requester, to: &write) }
        if !write.isEmpty { try await database.write(write) }
        if let read, moves {
            try await ephemera.tellReceipt(on: read, thread: nil, at: now, in: room, by: requester.userID)
        }
    }

    /// Threads of a room in which a user's receipts are kept, by whom they count for what is unread.
    private static let mostThreads = 2_000

    /// Moves a receipt or the marker, forwards: a request that comes late, or of a device that is behind, moves nothing back.
    ///
    /// - Returns: whether it moves.
    @discardableResult
    private func add(
        _ type: String, _ eventID: EventID, _ thread: String?, at now: Int64, _ room: Room, _ requester: Requester,
        to write: inout Write
    ) async throws -> Bool {
        switch type {
        case "m.read", "m.read.private":
            let known = try await database.read {
                try await self.database.receipts(in: room.nid, of: requester.nid, $0)
            }
            let present = known.first { $0.type == type && $0.thread.hasSameBytes(as: thread ?? "") }
            if let present = present.flatMap({ EventID($0.eventID) }), try await isBehind(eventID, present, in: room) {
                return false
            }
            write.putReceipt(
                in: room.nid, of: requester.nid, type: type, thread: thread ?? "", event: eventID,
                at: now, threads: Self.mostThreads)
        case "m.fully_read":
            guard thread == nil else { throw MatrixError.invalidParam("m.fully_read has no thread_id.") }
            let present = try await database.accountData(of: requester.nid, room: room.nid, type: type)
            let marked = try present.flatMap {
                try JSONDocument(parsing: $0, limits: .own).root["event_id"]?.string.flatMap { EventID($0) }
            }
            if let marked, try await isBehind(eventID, marked, in: room) { return false }
            let content: JSON = ["event_id": .string(eventID.string)]
            write.putAccountData(of: requester.nid, room: room.nid, type: type, content: content.encoded())
        default: throw MatrixError.invalidParam("“\(type)” is not a type of receipts.")
        }
        return true
    }

    /// Whether an event stands before another one in the room, as far as both are known.
    private func isBehind(_ eventID: EventID, _ other: EventID, in room: Room) async throws -> Bool {
        if eventID == other { return false }
        let events = try await database.read { try await self.database.events([eventID, other], $0) }
        guard let event = events[eventID], let other = events[other], event.room == room.nid, other.room == room.nid,
            let position = event.position, let otherPosition = other.position
        else { return false }
        return (event.orderDepth, position) < (other.orderDepth, otherPosition)
    }

    /// - Parameter milliseconds: how long the user is going to be typing; nil when it has stopped.
    public func setTyping(_ milliseconds: Int64?, in roomID: RoomID, by requester: Requester) async throws {
        let room = try await joined(roomID, requester)
        try await typing.set(requester.userID, in: room.nid, for: milliseconds)
        try await ephemera.tellTyping(milliseconds != nil, in: room, by: requester.userID)
    }
}
