import Database
import Logging
import MatrixCore

/// Joining, leaving and knocking at rooms that this server isn't in, by way of servers that are (Server-Server API, "Joining Rooms",
/// "Leaving Rooms (Rejecting Invites)", "Knocking upon a room"), and inviting users of other servers.
final class RemoteMemberships: Sendable {
    let federated: FederatedRooms
    let client: FederationClient
    let intake: EventIntake
    private let missing: MissingEvents
    let partialRooms: PartialRooms
    let arrivals: Arrivals
    /// From how many servers on a room is used before its members are known.
    private let partialFrom: Int
    private let logger: Logger
    var rooms: RoomRegistry { federated.rooms }
    private var database: Database { rooms.database }
    private var context: RoomContext { rooms.context }

    /// Servers that are asked in turn, and milliseconds and bytes that the whole of a room takes at most.
    private static let mostServers = 10
    private static let timeout: Int64 = 120_000
    private static let roomBytes = 500 << 20

    init(
        federated: FederatedRooms, client: FederationClient, intake: EventIntake, missing: MissingEvents,
        partialRooms: PartialRooms, arrivals: Arrivals, partialFrom: Int, logger: Logger
    ) {
        self.missing = missing
        self.partialRooms = partialRooms
        self.arrivals = arrivals
        self.partialFrom = partialFrom
        self.federated = federated
        self.client = client
        self.intake = intake
        self.logger = logger
    }

    /// The servers by which a user may get into a room: those named, the one that invited, the room's own.
    func candidates(_ named: [ServerName], _ roomID: RoomID, for user: UserNID) async throws -> [ServerName] {
        var servers: [ServerName] = []
        if let room = try await rooms.room(roomID) {
            let (stripped, membership) = try await database.read { reader in
                (
                    try await self.database.strippedState(of: room.nid, for: user, reader),
                    try await self.database.membership(of: user, in: room.nid, reader)
                )
            }
            if let via = stripped?.via { servers.append(via) }
            if let membership, membership.membership == .invite,
                let stored = try await database.events([membership.event]).first,
                let sender = try await database.user(stored.sender)
            {
                servers.append(sender.server)
            }
            servers += named
            servers += try await federated.servers(in: room).prefix(Self.mostServers)
        } else {
            servers = named
        }
        if let server = roomID.server { servers.append(server) }
        var chosen: [ServerName] = []
        for server in servers where server != context.serverName && !chosen.contains(server) { chosen.append(server) }
        // Those that rest come last.
        let resting = chosen.filter { client.health.isResting($0) }
        return Array((chosen.filter { !resting.contains($0) } + resting).prefix(Self.mostServers))
    }

    /// Asks servers in turn until one does it.
    private func withFirst<T>(
        of servers: [ServerName], _ body: (ServerName) async throws -> T
    ) async throws -> T {
        var failure: MatrixError?
        for server in servers {
            do {
                return try await body(server)
            } catch let error as FederationFailure {
                logger.info("a server doesn't help", metadata: ["server": "\(server)", "reason": "\(error.reason)"])
                // What a server says about the room counts more than that another one can't be reached.
                if failure == nil || error.status != nil { failure = error.clientError }
            }
        }
        throw failure ?? MatrixError.notFound("No server is known by which to get into this room.")
    }

    private static let versions: [(String, String)] = RoomVersion.all.map { ("ver", $0.identifier) }

    private func template(
        _ operation: String, _ membership: String, of user: UserID, in roomID: RoomID, at server: ServerName,
        query: [(String, String)] = versions
    ) async throws -> ForeignTemplate {
        let path = FederationClient.path(
            "/_matrix/federation/v1/\(operation)", roomID.string, user.string, query: query)
        return try ForeignTemplate(
            try await client.get(path, from: server), membership, of: user, in: roomID, by: server)
    }

    private func event(_ template: ForeignTemplate, _ content: JSON) throws -> Event {
        let surroundings = context.surroundings
        return try context.sign(
            try template.template(
                content: content, at: surroundings.now(),
                eventID: EventID(unchecked: "$\(surroundings.randomText(18)):\(context.serverName)")))
    }

    // MARK: - Joining

    /// Has a user join a room by way of another server.
    ///
    /// - Parameter content: of the member event.
    /// - Returns: the room, with the state that it has there.
    func join(_ roomID: RoomID, by user: UserID, _ nid: UserNID, content: JSON, via named: [ServerName]) async throws
        -> Room
    {
        let servers = try await candidates(named, roomID, for: nid)
        arrivals.begin(roomID)
        defer { arrivals.end(roomID) }
        return try await withFirst(of: servers) { server in
            let template = try await template("make_join", "join", of: user, in: roomID, at: server)
            let event = try event(template, content)
            let path = FederationClient.path(
                "/_matrix/federation/v2/send_join", roomID.string, event.eventID.string,
                query: [("omit_members", "true")])
            let answer = try await client.put(
                path, event.json, to: server, timeout: Self.timeout, mostBytes: Self.roomBytes)
            return try await takeUp(answer, event, template.version, from: server)
        }
    }

    /// Makes a room of what a server answers to a join (A08).
    private func takeUp(
        _ answer: JSONView, _ own: Event, _ version: RoomVersion, from server: ServerName
    ) async throws -> Room {
        var join = own
        // A restricted room's server has added its signature.
        if let signed = answer["event"], signed.isObject,
            let event = try? Event(receiving: Array(signed.raw), version: version), event.eventID == own.eventID
        {
            join = event
        }
        var state = answer["state"]?.elements.map { $0 } ?? []
        var chain = answer["auth_chain"]?.elements.map { $0 } ?? []
        // A small room is taken up whole. Any other is there at once without its members, however large it is (MSC3706).
        var others: [ServerNID]?
        if answer["members_omitted"]?.bool == true {
            let names = answer["servers_in_room"]?.elements.compactMap { $0.string.flatMap { ServerName($0) } } ?? []
            if names.count < partialFrom, let whole = try? await wholeState(before: own, of: server) {
                (state, chain) = whole
            } else {
                let numbers = try await database.numbers(
                    ofServers: Array(Set(names + [server]).subtracting([context.serverName]).prefix(Self.mostNamed)))
                others = numbers.values.sorted()
            }
        }
        let events = try await intake.valid(chain + state, in: own.roomID, version)
        let stateIDs = Set(state.compactMap { Self.eventID(of: $0, version) })
        guard
            let create = events.first(where: { $0.type == "m.room.create" && stateIDs.contains($0.eventID) }),
            (create.content["room_version"]?.string ?? "1") == version.identifier
        else { throw FederationFailure(server: server, reason: "its answer holds no create event of this room") }
        let entry = join
        let room = try await arrivals.write(own.roomID) { told in
            try await write(entry, events, stateIDs, of: version, servers: others, from: server, told)
        }
        if room.record.partialJoin != nil { partialRooms.begin(room.nid) }
        return room
    }

    /// Writes a join, upon the state that a server has told.
    ///
    /// - Parameters:
    ///   - events: of the state before the join, and those that authorise them, in the order of their auth events.
    ///   - stateIDs: those of the state.
    ///   - servers: the others in the room, if the state comes without its members.
    ///   - told: what was told of the room since the join was begun.
    private func write(
        _ entry: Event, _ events: [Event], _ stateIDs: Set<EventID>, of version: RoomVersion, servers: [ServerNID]?,
        from server: ServerName, _ told: [Arrivals.Told]
    ) async throws -> Room {
        let known = try await rooms.room(entry.roomID)
        let isInside = if let known { try await federated.isResident(known) } else { false }
        let own = context.serverName
        let waiting = try await readable(told, in: entry.roomID, version).filter { told in
            // That somebody here is out of the room is told to those outside, too, who can't place it.
            guard told.event.type == "m.room.member", told.event.sender.server != own,
                told.event.stateKey.flatMap({ UserID($0) })?.server == own
            else { return true }
            return told.event.authEvents.contains(entry.eventID)
        }
        let now = context.surroundings.now()
        let take: @Sendable (inout RoomDraft) async throws -> Void = { draft in
            try draft.prove(version)
            try await draft.lookAhead(events)
            var kept: [StoredEvent] = []
            for event in events where event.eventID != entry.eventID {
                do {
                    let stored = try await draft.receiveOutlier(event)
                    if stateIDs.contains(event.eventID), !stored.flags.contains(.rejected) { kept.append(stored) }
                } catch is RoomDraft.Missing {
                    // What nothing authorises is no part of the room.
                }
            }
            if !waiting.isEmpty {
                let position = draft.write.takePosition()
                for (place, one) in waiting.enumerated() {
                    draft.write.stage(
                        one.event, in: draft.record.nid, position: position, place: Int64(place), from: one.server,
                        at: now)
                }
            }
            // If it was heard of before the answer came, whoever came in by that has left since.
            if !isInside, try await draft.find([entry.eventID])[entry.eventID] != nil { return }
            let members = Array(try await draft.find(entry.authEvents).values)
            let mayBeAhead = !isInside && !draft.isPartial
            let isAhead = mayBeAhead ? try await !draft.leaves(unknownTo: kept + members).isEmpty : false
            if !draft.tips.isEmpty, isInside || isAhead {
                try await Self.takeUp(entry, into: &draft, isWhole: servers == nil, knowing: kept, from: server)
                return
            }
            try await draft.endPartial()
            let before = try await draft.state(of: kept)
            try await draft.tellDevicesOfForgotten(in: kept)
            // What was known of the room before is history behind a gap.
            draft.forgetExtremities()
            switch try await Self.receive(entry, into: &draft, stateBefore: before, from: server) {
            case .accepted:
                if let servers { draft.becomePartial(servers, via: server) }
            case .known, .softFailed, .rejected:
                throw FederationFailure(server: server, reason: "the state that it tells of doesn't allow the join")
            }
        }
        do { return try await write(into: entry.roomID, version, take) } catch is MembersOmitted {
            return try await takeUp(entry, uponStateOf: server)
        }
    }

    /// What was told of a room before its version was known, as far as it is good.
    private func readable(
        _ told: [Arrivals.Told], in roomID: RoomID, _ version: RoomVersion
    ) async throws -> [(event: Event, server: ServerNID)] {
        let views = told.map { (try? JSONDocument(parsing: $0.json))?.root }
        let read = zip(told, views).compactMap { one, view in view.map { (one.server, $0) } }
        return zip(read, try await intake.check(read.map(\.1), in: roomID, version)).compactMap { one, result in
            (try? result.get()).map { ($0, one.0) }
        }
    }

    /// The members before a join aren't told, and the room is one whose members are all known.
    private struct MembersOmitted: Error {}

    /// Takes up a join into a room that this server is in, upon the whole state that the server has before it.
    private func takeUp(_ join: Event, uponStateOf server: ServerName) async throws -> Room {
        guard let room = try await rooms.room(join.roomID) else { throw MatrixError.stopping }
        let state = try await missing.fetchState(at: join.eventID, in: room, of: server)
        try await rooms.perform(in: room) { draft in
            try await Self.takeUp(
                join, into: &draft, isWhole: true, knowing: try await draft.members(ofState: state), from: server)
        }
        return room
    }

    private func wholeState(
        before join: Event, of server: ServerName
    ) async throws -> (state: [JSONView], chain: [JSONView]) {
        let path = FederationClient.path(
            "/_matrix/federation/v1/state", join.roomID.string, query: [("event_id", join.eventID.string)])
        let answer = try await client.get(path, from: server, timeout: Self.timeout, mostBytes: Self.roomBytes)
        return (answer["pdus"]?.elements.map { $0 } ?? [], answer["auth_chain"]?.elements.map { $0 } ?? [])
    }

    /// Servers of a room that are taken note of until its members are known.
    private static let mostNamed = 20_000

    /// Takes up the join of a user into a room that this server is in, or of which it knows what the other one doesn't: that has let them
    /// in, or knew whether they may, or somebody else here came in meanwhile.
    ///
    /// - Parameters:
    ///   - isWhole: whether the events are all of the state before the join.
    ///   - events: of the state before the join.
    private static func takeUp(
        _ join: Event, into draft: inout RoomDraft, isWhole: Bool, knowing events: [StoredEvent],
        from server: ServerName
    ) async throws {
        guard let user = join.stateMapKey else { return }
        let known = try await draft.state(user)
        let reception: RoomDraft.Reception
        do { reception = try await draft.receive(join) } catch is RoomDraft.Missing {
            // What it was sent upon isn't what is known here: the state there is that of the answer.
            guard isWhole || draft.isPartial else { throw MembersOmitted() }
            let before =
                draft.isPartial ? try await draft.state(with: events) : try await draft.state(of: events)
            reception = try await receive(join, into: &draft, stateBefore: before, from: server)
        }
        switch reception {
        case .known: break
        case .accepted:
            // It meets what the server hasn't heard yet.
            guard try await draft.state(user)?.eventID == join.eventID else {
                throw FederationFailure(
                    server: server, reason: "it hasn't heard of what keeps the user out; try again in a minute")
            }
            // Others take the user to have been there all the while, and weren't told what their devices have become.
            if let known, !join.authEvents.contains(known.eventID),
                let nid = try await draft.context.database.existingNumber(ofUser: join.sender)
            {
                draft.write.changeDeviceList(of: nid)
            }
        case .softFailed, .rejected:
            throw FederationFailure(server: server, reason: "the room doesn't allow the join that it has let happen")
        }
    }

    /// - Throws: ``FederationFailure`` if events aren't there that the join rests on, or their signatures can't be checked now.
    private static func receive(
        _ join: Event, into draft: inout RoomDraft, stateBefore: StateNID, from server: ServerName
    ) async throws -> RoomDraft.Reception {
        do { return try await draft.receive(join, stateBefore: stateBefore) } catch is RoomDraft.Missing {
            throw FederationFailure(
                server: server, reason: "what it tells of the room lacks events that the join rests on")
        }
    }

    /// Writes into a room, which is made if it isn't known here yet.
    private func write(
        into roomID: RoomID, _ version: RoomVersion,
        _ take: @escaping @Sendable (inout RoomDraft) async throws -> Void
    ) async throws -> Room {
        for _ in 0..<2 {
            if let room = try await rooms.room(roomID) {
                try await rooms.perform(in: room, take)
                return room
            }
            let record = RoomRecord(
                nid: try await database.newRoomNumber(), roomID: roomID, version: version.identifier)
            let made = try await rooms.readUnchecked { reader in
                var draft = try await RoomDraft(
                    record, isNew: true, version: version, context: self.context, reader: reader)
                try await take(&draft)
                return draft
            }
            guard var draft = made else { preconditionFailure("the draft was made above") }
            do { return try await rooms.make(&draft) } catch DatabaseError.constraint {
                // Somebody else here was faster.
            }
        }
        throw MatrixError.stopping
    }

    private static func eventID(of view: JSONView, _ version: RoomVersion) -> EventID? {
        (try? Event(receiving: Array(view.raw), version: version))?.eventID
    }

    // MARK: - Leaving and knocking

    /// Has a user leave a room that this server isn't in: turns an invitation or a knock down.
    func leave(_ room: Room, by user: UserID, _ nid: UserNID, content: JSON) async throws {
        let servers = try await candidates([], room.roomID, for: nid)
        var end: Event?
        do {
            end = try await withFirst(of: servers) { server in
                let template = try await template(
                    "make_leave", "leave", of: user, in: room.roomID, at: server, query: [])
                let event = try event(template, content)
                let path = FederationClient.path(
                    "/_matrix/federation/v2/send_leave", room.roomID.string, event.eventID.string)
                _ = try await client.put(path, event.json, to: server)
                return event
            }
        } catch let error as MatrixError {
            // Nobody can be kept in an invitation because its server is gone.
            logger.notice(
                "a user leaves a room whose servers can't be told",
                metadata: ["user": "\(user)", "room": "\(room.roomID)", "reason": "\(error.message)"])
        }
        // An event of its own tells the user's other devices; nobody else hears of it.
        let own =
            try end
            ?? context.sign(
                EventTemplate(
                    version: room.version, roomID: room.roomID, sender: user, type: "m.room.member",
                    stateKey: user.string, content: content, prevEvents: [], authEvents: [], depth: 1,
                    originServerTS: context.surroundings.now(),
                    eventID: room.version.rules.eventIDs == .assigned
                        ? EventID(unchecked: "$\(context.surroundings.randomText(18)):\(context.serverName)") : nil))
        try await rooms.perform(in: room) { draft in
            try await draft.endOutside(user: nid, by: own, .leave)
        }
    }

    /// Users who are taken out of a room again at most, and milliseconds after which others must have heard that they left.
    private static let mostDeparted = 10
    private static let hearing: Int64 = 60_000

    /// Has a server know that nobody here is in a room any more, which it tells of it: who left it was somewhere else when they did, or
    /// the server has come in since, by way of somebody who hadn't heard of that. What it doesn't know of the room it can't place their
    /// leaves without, so they leave once more, upon what it knows.
    ///
    /// - Returns: whether it knows it now.
    func leaveAgain(_ room: Room, at server: ServerName) async throws -> Bool {
        let departed = try await database.read { reader in
            try await self.database.departedLocalUsers(of: room.nid, limit: Self.mostDeparted, reader)
        }
        let found = try await database.events(departed.map(\.event))
        let times = Dictionary(uniqueKeysWithValues: found.map { ($0.nid, $0.originServerTS) })
        for (user, event) in departed {
            // What it says may have crossed the leave.
            guard let time = times[event], context.surroundings.now().elapsed(since: time) >= Self.hearing
            else { return false }
            guard let name = try await database.user(user) else { continue }
            // Who is about to come back isn't to be put out by that.
            if try await federated.isResident(room) || arrivals.isComing(room.roomID) { return true }
            do {
                let template = try await template(
                    "make_leave", "leave", of: name, in: room.roomID, at: server, query: [])
                let leave = try self.event(template, ["membership": "leave"])
                let path = FederationClient.path(
                    "/_matrix/federation/v2/send_leave", room.roomID.string, leave.eventID.string)
                _ = try await client.put(path, leave.json, to: server)
            } catch let failure as FederationFailure {
                // It knows that this one isn't there.
                guard let status = failure.status, (400..<500).contains(status) else { return false }
            }
        }
        return true
    }

    /// Has a user knock at a room that this server isn't in.
    func knock(_ roomID: RoomID, by user: UserID, _ nid: UserNID, content: JSON, via named: [ServerName]) async throws {
        let servers = try await candidates(named, roomID, for: nid)
        try await withFirst(of: servers) { server in
            let template = try await template("make_knock", "knock", of: user, in: roomID, at: server)
            let event = try event(template, content)
            let path = FederationClient.path(
                "/_matrix/federation/v1/send_knock", roomID.string, event.eventID.string)
            let answer = try await client.put(path, event.json, to: server)
            try await standOutside(
                event, template.version, .knock, user: nid,
                stripped: ForeignStrippedState.read(answer["knock_room_state"] ?? answer["knock_state_events"]),
                via: server)
        }
    }

    /// Notes that a user is invited to, or knocks at, a room that this server isn't in.
    func standOutside(
        _ event: Event, _ version: RoomVersion, _ membership: StoredMembership, user: UserNID, stripped: [UInt8],
        via server: ServerName
    ) async throws {
        _ = try await write(into: event.roomID, version) { draft in
            // Who is in the room knows better.
            if !draft.record.extremities.isEmpty { try draft.prove(version) }
            try await draft.standOutside(event, membership, user: user)
            draft.write.putStrippedState(stripped, of: draft.record.nid, for: user, via: server)
        }
    }

    // MARK: - Inviting

    /// Has the server of an invited user sign the invitation (Server-Server API, "Inviting to a room"), and takes it up.
    func invite(_ user: UserID, to room: Room, content: JSON, by sender: UserID) async throws {
        let (event, stripped) = try await rooms.perform(in: room) { draft in
            let template = try await draft.template(
                "m.room.member", stateKey: user.string, content: content, sender: sender)
            let event = try draft.context.sign(template)
            try await draft.authorize(event)
            return (event, try await draft.strippedState())
        }
        let vouchedFor = try await federated.vouchedFor(event, in: room)
        let signed = try await askToSign(vouchedFor, stripped, in: room, of: user.server)
        let reception = try await rooms.perform(in: room) { draft in
            try await draft.receive(signed, isRelayed: true)
        }
        switch reception {
        case .accepted, .known: break
        case .softFailed: throw MatrixError.forbidden("You may not invite \(user) any more.")
        case .rejected(let reason): throw MatrixError.forbidden(reason)
        }
    }

    /// The same where the rest stands whether or not it succeeds.
    func inviteIfPossible(_ user: UserID, to room: Room, content: JSON, by sender: UserID) async {
        do {
            try await invite(user, to: room, content: content, by: sender)
        } catch {
            logger.notice(
                "an invitation failed", metadata: ["user": "\(user)", "room": "\(room.roomID)", "reason": "\(error)"])
        }
    }

    /// Asks the server of whoever invited a third-party identifier for the invitation of the user whose it is.
    func exchange(_ event: JSON, in roomID: RoomID, with server: ServerName) async throws {
        let path = FederationClient.path("/_matrix/federation/v1/exchange_third_party_invite", roomID.string)
        do { _ = try await client.put(path, try event.canonical(), to: server) } catch let error as FederationFailure {
            throw error.clientError
        }
    }

    private func askToSign(
        _ event: Event, _ stripped: [Event], in room: Room, of server: ServerName
    ) async throws -> Event {
        let body: JSON = [
            "room_version": .string(room.version.identifier), "event": event.root.json,
            "invite_room_state": .array(stripped.map(\.root.json)),
        ]
        let path = FederationClient.path(
            "/_matrix/federation/v2/invite", room.roomID.string, event.eventID.string)
        do {
            let answer = try await client.put(path, try body.canonical(), to: server)
            guard let view = answer["event"],
                let signed = try await intake.check([view], in: room.roomID, room.version).first?.get(),
                signed.eventID == event.eventID
            else { throw FederationFailure(server: server, reason: "it doesn't answer with the invitation") }
            return signed
        } catch let error as FederationFailure {
            throw error.clientError
        }
    }
}

/// Stripped state, as other servers send it with invitations and knocks (Client-Server API, "Stripped state").
enum ForeignStrippedState {
    private static let most = 100
    private static let mostBytes = 256 << 10

    /// The events of a list that clients can be shown, as an array: what isn't stripped state is left out (A17).
    static func read(_ list: JSONView?) -> [UInt8] {
        var writer = JSONWriter()
        writer.beginArray()
        for event in list?.elements.prefix(most).map({ $0 }) ?? [] {
            guard let type = event["type"]?.string, let stateKey = event["state_key"]?.string,
                let sender = event["sender"]?.string, UserID(sender) != nil, let content = event["content"],
                content.isObject, writer.bytes.count + content.range.count < mostBytes,
                let own = try? JSONDocument(parsing: Array(content.raw))
            else { continue }
            writer.beginObject()
            writer.key("content")
            writer.raw(own.root.raw)
            writer.key("sender")
            writer.string(sender)
            writer.key("state_key")
            writer.string(stateKey)
            writer.key("type")
            writer.string(type)
            writer.endObject()
        }
        writer.endArray()
        return writer.bytes
    }
}
