import Database
import MatrixCore

/// What people report to those who run the server (Client-Server API, module "Reporting Content"): kept until somebody looks.
public final class ReportService: Sendable {
    private let rooms: RoomRegistry
    private var database: Database { rooms.database }

    init(rooms: RoomRegistry) { self.rooms = rooms }

    /// Characters of a reason; more helps nobody.
    private static let longestReason = 2_000

    /// Whether or not the requester is in the room.
    ///
    /// - Throws: `M_NOT_FOUND` if the server doesn't know the room.
    public func reportRoom(_ roomID: RoomID, reason: String, by requester: Requester) async throws {
        guard let room = try await rooms.room(roomID) else {
            throw MatrixError.notFound("This server doesn't know the room.")
        }
        try await keep(requester, reason, room: room.nid)
    }

    /// - Throws: `M_NOT_FOUND` if there is no such event, or the requester is not in its room or may not read it.
    public func reportEvent(
        _ eventID: EventID, in roomID: RoomID, reason: String?, score: Int64?, by requester: Requester
    ) async throws {
        let none = MatrixError.notFound("There is no such event, or you are not in its room.")
        let isJoined: Bool
        do {
            isJoined = try await rooms.readable(roomID, by: requester).1.leftAt == nil
        } catch let error as MatrixError where error.code == .forbidden { throw none }
        guard isJoined, let room = try await rooms.room(roomID), let event = try await database.event(eventID),
            event.room == room.nid, event.flags.isDisjoint(with: .hidden), try await mayRead(event, room, requester)
        else { throw none }
        try await keep(requester, reason, room: room.nid, event: eventID, score: score)
    }

    private func mayRead(_ event: StoredEvent, _ room: Room, _ requester: Requester) async throws -> Bool {
        try await database.read { reader in
            var visibility = try await EventVisibility(
                self.rooms.context, room: room, user: requester.userID, nid: requester.nid,
                access: RoomAccess(leftAt: nil, membership: .join), reader: reader)
            return try await visibility.allows(event)
        }
    }

    /// Whether there is such a user is told to nobody.
    public func reportUser(_ user: UserID, reason: String, by requester: Requester) async throws {
        try await keep(requester, reason, user: user)
    }

    private func keep(
        _ requester: Requester, _ reason: String?, room: RoomNID? = nil, event: EventID? = nil, user: UserID? = nil,
        score: Int64? = nil
    ) async throws {
        let surroundings = rooms.context.surroundings
        var write = Write()
        write.insert(
            Report(
                id: surroundings.randomText(20), reporter: requester.nid, createdTS: surroundings.now(), room: room,
                event: event, user: user, reason: reason.map { $0.shortened(to: Self.longestReason) }, score: score))
        try await database.write(write)
    }

    /// The newest reports, for those who run the server.
    public func reports(limit: Int) async throws -> [Report] { try await database.reports(limit: min(limit, 1_000)) }
}
