import Database
import MatrixCore

/// Making rooms (Client-Server API, "Creation").
public final class RoomCreationService: Sendable {
    let rooms: RoomRegistry
    let memberships: MembershipService
    let succession: RoomSuccession
    let defaultVersion: RoomVersion
    var context: RoomContext { rooms.context }
    var database: Database { rooms.database }

    init(
        rooms: RoomRegistry, memberships: MembershipService, succession: RoomSuccession, defaultVersion: RoomVersion
    ) {
        self.succession = succession
        self.rooms = rooms
        self.memberships = memberships
        self.defaultVersion = defaultVersion
    }

    /// What of a room a preset decides.
    public enum Preset: String, Sendable {
        case privateChat = "private_chat"
        case publicChat = "public_chat"
        case trustedPrivateChat = "trusted_private_chat"
    }

    /// A piece of state that the client wants from the beginning.
    public struct InitialState: Sendable {
        public var key: StateKey
        public var content: JSON

        public init(key: StateKey, content: JSON) {
            self.key = key
            self.content = content
        }
    }

    /// What a client asks for (`POST /createRoom`).
    public struct Request: Sendable {
        public var preset: Preset?
        public var isPublished = false
        public var aliasName: String?
        public var name: String?
        public var topic: String?
        public var invites: [UserID] = []
        public var roomVersion: String?
        public var creationContent = JSONObject()
        public var initialState: [InitialState] = []
        public var isDirect = false
        public var powerLevels = JSONObject()

        public init() {}
    }

    /// - Throws: `M_UNSUPPORTED_ROOM_VERSION`, `M_ROOM_IN_USE`, `M_INVALID_ROOM_STATE` and what the single events may.
    public func create(_ request: Request, by requester: Requester) async throws -> RoomID {
        guard let version = request.roomVersion.map({ RoomVersion.named($0) }) ?? defaultVersion else {
            throw MatrixError(
                .unsupportedRoomVersion, "This server doesn't know room version \(request.roomVersion ?? "").")
        }
        let alias = try await request.aliasName.asyncMap { try await self.freeAlias($0) }
        if let alias { try context.appservices.checkMayChange(alias, by: requester.appservice) }
        var guests: [(UserID, MembershipService.Profile)] = []
        for user in request.invites { guests.append((user, try await memberships.invitable(user))) }
        let profile = try await memberships.profile(of: requester.userID)
        // The ID of a room of version 12 is the hash of its create event: two rooms that one user makes in the same
        // millisecond must differ in something.
        for attempt in 0..<Self.attempts {
            do {
                let create = try createEvent(request, version, requester, later: Int64(attempt))
                return try await furnish(create, request, requester, alias, guests, profile)
            } catch DatabaseError.constraint {
                if let alias, try await database.room(ofAlias: alias) != nil { throw Self.aliasInUse }
            }
        }
        throw MatrixError(.unknown, "The room got no ID of its own; try again.")
    }

    /// How many rooms one user may make in one millisecond.
    private static let attempts = 20

    private func furnish(
        _ create: Event, _ request: Request, _ requester: Requester, _ alias: RoomAlias?,
        _ guests: [(UserID, MembershipService.Profile)], _ profile: MembershipService.Profile
    ) async throws -> RoomID {
        let version = create.version
        let record = RoomRecord(
            nid: try await database.newRoomNumber(), roomID: create.roomID, version: version.identifier)
        let draft = try await rooms.readUnchecked { reader in
            var draft = try await RoomDraft(
                record, isNew: true, version: version, context: self.context, reader: reader)
            try await draft.append(create)
            try await draft.append(
                "m.room.member", stateKey: requester.userID.string,
                content: MembershipService.content("join", profile: profile, reason: nil), sender: requester.userID)
            for (key, content) in try self.furnishings(request, version, requester, alias) {
                try await self.append(key, content, to: &draft, by: requester)
            }
            for (user, profile) in guests where user.server == self.context.serverName {
                try await draft.append(
                    "m.room.member", stateKey: user.string,
                    content: MembershipService.content(
                        "invite", profile: profile, reason: nil, isDirect: request.isDirect),
                    sender: requester.userID)
            }
            return draft
        }
        guard var draft else { preconditionFailure("the draft was made above") }
        if let alias { draft.write.addAlias(alias, to: record.nid, by: requester.nid, at: context.surroundings.now()) }
        if request.isPublished { draft.write.publish(record.nid) }
        let room = try await rooms.make(&draft)
        for (user, _) in guests where user.server != context.serverName {
            await memberships.remote.inviteIfPossible(
                user, to: room,
                content: MembershipService.content(
                    "invite", profile: nil, reason: nil, isDirect: request.isDirect), by: requester.userID)
        }
        return room.roomID
    }

    static let aliasInUse = MatrixError(.roomInUse, "This alias points to a room already; choose another one.")

    private func append(
        _ key: StateKey, _ content: JSON, to draft: inout RoomDraft, by requester: Requester
    ) async throws {
        do {
            try await draft.append(key.type, stateKey: key.key, content: content, sender: requester.userID)
        } catch let error as MatrixError where error.code == .forbidden {
            throw MatrixError(
                .invalidRoomState, "The room can't be made with this \(key.type): \(error.message)", status: 400)
        }
    }

    private func freeAlias(_ localpart: String) async throws -> RoomAlias {
        guard let alias = RoomAlias("#\(localpart):\(context.serverName)") else {
            throw MatrixError.invalidParam("“\(localpart)” can't be the local part of a room alias.")
        }
        if try await database.room(ofAlias: alias) != nil { throw Self.aliasInUse }
        return alias
    }

    private func createEvent(
        _ request: Request, _ version: RoomVersion, _ requester: Requester, later: Int64
    ) throws -> Event {
        var content = request.creationContent
        content["room_version"] = .string(version.identifier)
        content["creator"] = version.rules.authorization.creator == .content ? .string(requester.userID.string) : nil
        let creatorsRule = version.rules.authorization.creatorsHaveInfinitePower
        if creatorsRule, request.preset == .trustedPrivateChat {
            // Those invited into a trusted private chat stand beside its creator.
            var creators = content["additional_creators"]?.arrayValue ?? []
            var named = Set(creators)
            for user in request.invites where named.insert(.string(user.string)).inserted {
                creators.append(.string(user.string))
            }
            content["additional_creators"] = .array(creators)
        }
        let hasDomain = version.rules.roomIDs == .withDomain
        let surroundings = context.surroundings
        return try context.sign(
            EventTemplate(
                version: version,
                roomID: hasDomain ? RoomID(unchecked: "!\(surroundings.randomText(18)):\(context.serverName)") : nil,
                sender: requester.userID, type: "m.room.create", stateKey: "", content: .object(content),
                prevEvents: [],
                authEvents: [], depth: 1, originServerTS: surroundings.now() + later,
                eventID: version.rules.eventIDs == .assigned
                    ? EventID(unchecked: "$\(surroundings.randomText(18)):\(context.serverName)") : nil))
    }

    /// The state after the creator's join, in the order of the specification; what the client gives replaces what the
    /// preset would.
    private func furnishings(
        _ request: Request, _ version: RoomVersion, _ requester: Requester, _ alias: RoomAlias?
    ) throws -> [(StateKey, JSON)] {
        let preset = request.preset ?? (request.isPublished ? .publicChat : .privateChat)
        var state: [(StateKey, JSON)] = [
            (.powerLevels, .object(powerLevels(request, preset, version, requester)))
        ]
        if let alias { state.append((StateKey("m.room.canonical_alias"), ["alias": .string(alias.string)])) }
        state.append((.joinRules, ["join_rule": .string(preset == .publicChat ? "public" : "invite")]))
        state.append((.historyVisibility, ["history_visibility": "shared"]))
        if preset != .publicChat { state.append((StateKey("m.room.guest_access"), ["guest_access": "can_join"])) }
        var places = Dictionary(state.enumerated().map { ($1.0, $0) }) { $1 }
        for initial in request.initialState {
            guard initial.key.type != "m.room.create", initial.key != .member(requester.userID) else {
                throw MatrixError(.invalidRoomState, "initial_state can't hold \(initial.key.type).", status: 400)
            }
            if let place = places[initial.key] {
                state[place].1 = initial.content
            } else {
                places[initial.key] = state.count
                state.append((initial.key, initial.content))
            }
        }
        if let name = request.name { state.append((StateKey("m.room.name"), ["name": .string(name)])) }
        if let topic = request.topic {
            state.append(
                (
                    StateKey("m.room.topic"),
                    ["topic": .string(topic), "m.topic": ["m.text": [["body": .string(topic)]]]]
                ))
        }
        return state
    }

    private func powerLevels(
        _ request: Request, _ preset: Preset, _ version: RoomVersion, _ requester: Requester
    ) -> JSONObject {
        let creatorsRule = version.rules.authorization.creatorsHaveInfinitePower
        var users = JSONObject()
        if !creatorsRule {
            users[requester.userID.string] = 100
            if preset == .trustedPrivateChat { for user in request.invites { users[user.string] = 100 } }
        }
        var content: JSONObject = [
            "users": .object(users), "users_default": 0, "events_default": 0, "state_default": 50, "ban": 50,
            "kick": 50,
            "redact": 50, "invite": .integer(preset == .publicChat ? 50 : 0), "historical": 100,
            "events": [
                "m.room.name": 50, "m.room.avatar": 50, "m.room.canonical_alias": 50, "m.room.power_levels": 100,
                "m.room.history_visibility": 100, "m.room.server_acl": 100, "m.room.encryption": 100,
                // Where creators stand above all levels, upgrading a room is theirs.
                "m.room.tombstone": .integer(creatorsRule ? 150 : 100),
            ],
        ]
        for (key, value) in request.powerLevels { content[key] = value }
        return content
    }
}
