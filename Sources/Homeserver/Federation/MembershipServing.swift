import Database
import MatrixCore

/// Users of other servers who join, leave, knock and are invited (Server-Server API, "Joining Rooms", "Knocking upon a room",
/// "Leaving Rooms (Rejecting Invites)", "Inviting to a room").
public final class MembershipServing: Sendable {
    private let federated: FederatedRooms
    private let serving: EventServing
    private let intake: EventIntake
    private let memberships: MembershipService
    private let remote: RemoteMemberships
    private var rooms: RoomRegistry { federated.rooms }
    private var database: Database { federated.database }
    private var context: RoomContext { federated.context }

    init(
        federated: FederatedRooms, serving: EventServing, intake: EventIntake, memberships: MembershipService,
        remote: RemoteMemberships
    ) {
        self.federated = federated
        self.serving = serving
        self.intake = intake
        self.memberships = memberships
        self.remote = remote
    }

    /// What a member event is to say.
    public enum Kind: String, Sendable {
        case join, leave, knock
    }

    /// A proposal for the member event of a user of another server (`GET /make_join`, `make_leave`, `make_knock`).
    ///
    /// - Parameter versions: those that the asking server knows; nil if it doesn't say.
    public func template(
        _ kind: Kind, for user: UserID, in roomID: RoomID, versions: [String]?, by server: ServerName
    ) async throws -> JSON {
        guard user.server == server else {
            throw MatrixError.forbidden("\(user) is not a user of \(server).")
        }
        let room = try await remote.partialRooms.room(roomID, for: server)
        if kind != .leave {
            let known = versions.flatMap { $0.isEmpty ? nil : $0 } ?? ["1"]
            guard known.contains(where: { $0.hasSameBytes(as: room.version.identifier) }) else {
                throw MatrixError(
                    .incompatibleRoomVersion, "Your server doesn't know room version \(room.version.identifier).",
                    extra: ["room_version": .string(room.version.identifier)])
            }
        }
        let event = try await rooms.perform(in: room) { draft in
            var content: JSON = ["membership": .string(kind.rawValue)]
            if kind == .join, let authoriser = try await self.memberships.authoriser(of: user, in: &draft) {
                content["join_authorised_via_users_server"] = .string(authoriser.string)
            }
            let template = try await draft.template(
                "m.room.member", stateKey: user.string, content: content, sender: user)
            // Signed only to see whether it would be allowed; the signature stays here.
            let event = try draft.context.sign(template)
            try await draft.authorize(event)
            return event
        }
        var json = event.root.json.objectValue ?? [:]
        for field in ["hashes", "signatures", "event_id"] { json.remove(field) }
        json["origin"] = .string(context.serverName.string)
        return ["room_version": .string(room.version.identifier), "event": .object(json)]
    }

    /// Takes the member event of a user of another server up and tells the others (`PUT /send_join`, `send_leave`, `send_knock`).
    ///
    /// - Returns: the room, the event as it was taken up, and the state before it.
    private func take(
        _ kind: Kind, _ body: JSONView, _ eventID: EventID, in roomID: RoomID, by server: ServerName
    ) async throws -> (Room, Event, StateNID) {
        let room = try await remote.partialRooms.room(roomID, for: server)
        var event: Event
        switch try await intake.check([body], in: roomID, room.version).first {
        case .success(let checked)?: event = checked
        case .failure(let reason)?:
            // A restricted join lacks this server's signature, which it is about to get.
            guard kind == .join, let unsigned = try await signed(body, roomID, room.version) else {
                throw MatrixError.forbidden(reason.description)
            }
            event = unsigned
        case nil: throw MatrixError.badJSON("There is no event.")
        }
        guard event.eventID == eventID || room.version.rules.eventIDs != .assigned else {
            throw MatrixError.badJSON("The event has another ID than the path.")
        }
        guard event.type == "m.room.member", event.sender.server == server,
            event.stateKey?.hasSameBytes(as: event.sender.string) == true,
            event.content["membership"]?.isString(kind.rawValue) == true
        else { throw MatrixError.badJSON("This is no event by which a user of \(server) does a \(kind.rawValue).") }
        let own = try await federated.vouchedFor([event], in: room)[0]
        try await database.number([own])
        let reception = try await rooms.perform(in: room) { draft in
            do {
                return try await draft.receive(own, isRelayed: true)
            } catch is RoomDraft.Missing {
                throw MatrixError.forbidden("The event rests on events that this server doesn't have; ask again.")
            }
        }
        switch reception {
        case .accepted, .known: break
        case .softFailed: throw MatrixError.forbidden("The room doesn't allow it any more.")
        case .rejected(let reason): throw MatrixError.forbidden(reason)
        }
        guard let stored = try await database.event(own.eventID), stored.flags.isDisjoint(with: .hidden),
            let before = stored.stateBefore
        else { throw MatrixError.forbidden("The room doesn't allow it.") }
        return (room, own, before)
    }

    /// A join by the right of a user of this server, with this server's signature (room version 8).
    private func signed(_ body: JSONView, _ roomID: RoomID, _ version: RoomVersion) async throws -> Event? {
        guard version.rules.authorization.restrictedJoins,
            let user = body["content"]?["join_authorised_via_users_server"]?.string.flatMap({ UserID($0) }),
            user.server == context.serverName, let event = try? Event(receiving: Array(body.raw), version: version),
            let signed = try? event.addingSignature(by: context.signingKey, as: context.serverName)
        else { return nil }
        return try await intake.check([signed.root], in: roomID, version).first.flatMap { try? $0.get() }
    }

    /// `PUT /send_join/{roomId}/{eventId}`.
    ///
    /// - Parameter omitsMembers: whether the state is told without the members but those that authorise the event.
    public func join(
        _ body: JSONView, _ eventID: EventID, in roomID: RoomID, omitsMembers: Bool, by server: ServerName
    ) async throws -> [UInt8] {
        let (room, event, before) = try await take(.join, body, eventID, in: roomID, by: server)
        var (state, chain) = try await serving.events(of: before, in: room)
        if omitsMembers {
            let needed = Set(event.authEvents)
            let names = try await database.stateKeys(state.compactMap(\.stateKey))
            state = state.filter { stored in
                guard let key = stored.stateKey.flatMap({ names[$0] }) else { return false }
                return key.type != "m.room.member" || needed.contains(stored.eventID)
            }
            let kept = state.map(\.nid)
            let authors = try await database.read { try await self.database.authChain(of: kept, $0) }
            chain = try await database.events(authors.subtracting(kept).sorted())
        }
        var writer = JSONWriter(capacity: (state + chain).reduce(1_024) { $0 + $1.json.count + 1 })
        writer.beginObject()
        writer.key("auth_chain")
        EventServing.write(try chain.map { try context.told($0, room.version) }, into: &writer)
        writer.key("event")
        writer.raw(event.json)
        writer.key("members_omitted")
        writer.bool(omitsMembers)
        writer.key("origin")
        writer.string(context.serverName.string)
        writer.key("servers_in_room")
        writer.beginArray()
        for name in try await federated.servers(in: room) + [context.serverName] { writer.string(name.string) }
        writer.endArray()
        writer.key("state")
        EventServing.write(try state.map { try context.told($0, room.version) }, into: &writer)
        writer.endObject()
        return writer.bytes
    }

    /// `PUT /send_leave/{roomId}/{eventId}`.
    public func leave(_ body: JSONView, _ eventID: EventID, in roomID: RoomID, by server: ServerName) async throws {
        _ = try await take(.leave, body, eventID, in: roomID, by: server)
    }

    /// `PUT /send_knock/{roomId}/{eventId}`.
    public func knock(
        _ body: JSONView, _ eventID: EventID, in roomID: RoomID, by server: ServerName
    ) async throws -> JSON {
        let (room, _, _) = try await take(.knock, body, eventID, in: roomID, by: server)
        let stripped = try await rooms.perform(in: room) { try await $0.strippedState() }
        return [
            "knock_room_state": .array(
                stripped.map { event in
                    [
                        "type": .string(event.type), "state_key": .string(event.stateKey ?? ""),
                        "sender": .string(event.sender.string), "content": event.content.json,
                    ]
                })
        ]
    }

    /// A user here is invited (`PUT /invite/{roomId}/{eventId}`, versions 1 and 2).
    ///
    /// - Returns: the event, with this server's signature.
    public func invite(
        _ view: JSONView, version identifier: String, stripped: JSONView?, _ eventID: EventID, in roomID: RoomID,
        by server: ServerName
    ) async throws -> Event {
        guard let version = RoomVersion.named(identifier) else {
            throw MatrixError(
                .incompatibleRoomVersion, "This server doesn't know room version \(identifier.shortened(to: 32)).",
                extra: ["room_version": .string(identifier.shortened(to: 32))])
        }
        let event: Event
        switch try await intake.check([view], in: roomID, version).first {
        case .success(let checked)?: event = checked
        case .failure(let reason)?: throw MatrixError.forbidden(reason.description)
        case nil: throw MatrixError.badJSON("There is no event.")
        }
        guard event.eventID == eventID, event.type == "m.room.member", event.sender.server == server,
            event.content["membership"]?.isString("invite") == true,
            let user = event.stateKey.flatMap({ UserID($0) }), user.server == context.serverName
        else { throw MatrixError.badJSON("This is no invitation of a user of this server by one of \(server).") }
        guard let account = try await database.account(of: user), !account.isDeactivated else {
            throw MatrixError.notFound("There is no user \(user).")
        }
        try await InvitePermission(database: database).check(user)
        if let room = try await rooms.room(roomID), try await federated.allows(server, in: room) == false {
            throw MatrixError.forbidden("The room's access control list keeps \(server) out.")
        }
        let signed: Event
        do {
            signed = try event.addingSignature(by: context.signingKey, as: context.serverName)
        } catch {
            throw MatrixError.badJSON("The event can't be signed: \(error).")
        }
        if let room = try await rooms.room(roomID), try await federated.isResident(room) {
            // It comes with the room's other events.
            return signed
        }
        try await remote.standOutside(
            signed, version, .invite, user: account.nid, stripped: ForeignStrippedState.read(stripped), via: server)
        return signed
    }
}
