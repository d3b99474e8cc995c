import Database
import MatrixCore

/// Looking into rooms, and following them, without sync: what is left of the first version of the Client-Server API, and what
/// "Room Previews" is built upon.
public final class RoomPreviews: Sendable {
    private let reading: RoomReading
    private let sync: SyncService
    private let directory: DirectoryService
    private var rooms: RoomRegistry { reading.rooms }
    private var database: Database { rooms.database }

    init(reading: RoomReading, sync: SyncService, directory: DirectoryService) {
        self.reading = reading
        self.sync = sync
        self.directory = directory
    }

    private static let largestPage = 100

    /// A token of now.
    private func now() -> SyncToken {
        SyncToken(
            epoch: sync.epoch, position: database.committedPosition, run: sync.run, ephemeral: sync.serial.current)
    }

    // MARK: - A copy of what there is

    /// A room's state and newest messages (`GET /rooms/{roomId}/initialSync`).
    public func room(_ roomID: RoomID, limit: Int, for requester: Requester) async throws -> JSON {
        let (room, access) = try await rooms.readable(roomID, by: requester)
        return try await copy(of: room, access, limit, requester)
    }

    private func copy(of room: Room, _ access: RoomAccess, _ limit: Int, _ requester: Requester) async throws -> JSON {
        let state = try await reading.state(of: room.roomID, for: requester)
        let page = try await reading.messages(
            in: room.roomID,
            .init(from: nil, to: nil, backwards: true, limit: min(limit, Self.largestPage), filter: RoomEventFilter()),
            for: requester)
        let messages = try JSONDocument(parsing: page, limits: .own).root
        let chunk = messages["chunk"]?.json.arrayValue ?? []
        var json: JSONObject = [
            "room_id": .string(room.roomID.string), "state": try JSONDocument(parsing: state, limits: .own).root.json,
            "messages": .object([
                "chunk": .array(chunk.reversed()), "end": .string(now().text),
                "start": .string(messages["end"]?.string ?? messages["start"]?.string ?? ""),
            ]),
            "visibility": .string(try await directory.isPublished(room.roomID) ? "public" : "private"),
            "account_data": .array(try await accountData(room.nid, requester)),
        ]
        // The membership of one who only looks in is nobody's.
        if !access.isPeeking { json["membership"] = .string(access.membership.name) }
        return .object(json)
    }

    private func accountData(_ room: RoomNID?, _ requester: Requester) async throws -> [JSON] {
        let entries = try await database.read { reader in
            try await self.database.accountData(of: requester.nid, after: 0, upTo: .max, reader)
        }
        return try entries.filter { $0.room == room }.map(sync.pushRules.shown).map {
            ["type": .string($0.type), "content": try JSONDocument(parsing: $0.content, limits: .own).root.json]
        }
    }

    /// All of a user's rooms (`GET /initialSync`, deprecated).
    ///
    /// - Parameter archived: whether rooms that were left are wanted, too.
    public func all(limit: Int, archived: Bool, for requester: Requester) async throws -> JSON {
        let end = now()
        let memberships = try await database.read { try await self.database.memberships(of: requester.nid, $0) }
        var found: [JSON] = []
        for membership in memberships where !membership.forgotten {
            let room = try await rooms.room(membership.room)
            switch membership.membership {
            case .join:
                found.append(
                    try await copy(of: room, RoomAccess(leftAt: nil, membership: .join), limit, requester))
            case .leave, .ban:
                guard archived, let (_, access) = try? await rooms.readable(room.roomID, by: requester) else {
                    continue
                }
                found.append(try await copy(of: room, access, limit, requester))
            case .invite:
                guard let stored = try await database.events([membership.event]).first else { continue }
                let page = try await database.read { reader in
                    try await self.reading.events.page([stored], for: requester.nid, reader)
                }
                let event = try encode(page, room, requester)
                found.append([
                    "room_id": .string(room.roomID.string), "membership": "invite", "invite": event.first ?? [:],
                ])
            case .knock: continue
            }
        }
        return [
            "end": .string(end.text), "rooms": .array(found), "presence": [],
            "account_data": .array(try await accountData(nil, requester)),
        ]
    }

    // MARK: - What comes

    /// Events that come after a token (`GET /events`): of one room that the requester may look into, or of all that the
    /// requester is in. Waits for them if there are none yet; without a token it answers at once with one to go on from.
    public func events(
        from: String?, in roomID: RoomID?, timeout: Int64, for requester: Requester
    ) async throws -> JSON {
        guard let start = try from.map({ try Self.token($0) }) ?? now(), start.epoch == sync.epoch,
            try await database.reach(start.position)
        else { throw MatrixError.invalidParam("“from” is not a token that this server gave out.") }
        let surroundings = rooms.context.surroundings
        let deadline = surroundings.now() + min(max(timeout, 0), SyncService.longestWait)
        while true {
            let followed = try await followed(roomID, requester)
            let waiter = sync.notifier.register(requester.nid, rooms: Set(followed.map(\.0.nid)))
            defer { sync.notifier.remove(waiter) }
            let end = now()
            var chunk: [(Int64, JSON)] = []
            for (room, access) in followed { chunk += try await news(room, access, start, end, requester) }
            let left = deadline - surroundings.now()
            if from == nil || !chunk.isEmpty || left <= 0 || sync.notifier.isDraining {
                return [
                    "start": .string(start.text), "end": .string(end.text),
                    "chunk": .array(chunk.sorted { $0.0 < $1.0 }.map(\.1)),
                ]
            }
            try await waiter.wait(atMost: left, by: surroundings)
        }
    }

    private static func token(_ text: String) throws -> SyncToken? { SyncToken(text) }

    private func followed(_ roomID: RoomID?, _ requester: Requester) async throws -> [(Room, RoomAccess)] {
        if let roomID { return [try await rooms.readable(roomID, by: requester)] }
        let memberships = try await database.read { try await self.database.memberships(of: requester.nid, $0) }
        var found: [(Room, RoomAccess)] = []
        for membership in memberships where membership.membership == .join {
            found.append((try await rooms.room(membership.room), RoomAccess(leftAt: nil, membership: .join)))
        }
        return found
    }

    private func news(
        _ room: Room, _ access: RoomAccess, _ start: SyncToken, _ end: SyncToken, _ requester: Requester
    ) async throws -> [(Int64, JSON)] {
        guard !sync.activity.changed([room.nid], after: start.position).isEmpty else { return [] }
        return try await database.read { reader in
            let numbers = try await self.database.newestEvents(
                in: room.nid, after: start.position, upTo: end.position, limit: Self.largestPage, reader)
            var visibility = try await EventVisibility(
                self.rooms.context, room: room, user: requester.userID, nid: requester.nid, access: access,
                reader: reader)
            var allowed: [StoredEvent] = []
            for event in try await self.database.events(numbers, reader) where try await visibility.allows(event) {
                allowed.append(event)
            }
            let page = try await self.reading.events.page(allowed, for: requester.nid, seenBy: &visibility, reader)
            let encoded = try self.encode(page, room, requester)
            return zip(allowed, encoded).map { ($0.position ?? 0, $1) }
        }
    }

    private func encode(_ page: ClientEvents.Page, _ room: Room, _ requester: Requester) throws -> [JSON] {
        let audience = ClientEvents.Audience(requester, now: rooms.context.surroundings.now())
        return try page.events.map { event in
            var writer = JSONWriter()
            try reading.events.write(event, of: page, version: room.version, for: audience, into: &writer)
            return try JSONDocument(parsing: writer.bytes, limits: .own).root.json
        }
    }

    /// One event, wherever it is (`GET /events/{eventId}`, deprecated).
    public func event(_ eventID: EventID, for requester: Requester) async throws -> [UInt8] {
        guard let stored = try await database.event(eventID) else {
            throw MatrixError.notFound("There is no such event, or you may not read it.")
        }
        return try await reading.event(
            eventID, in: try await rooms.room(stored.room).roomID, for: requester)
    }
}
