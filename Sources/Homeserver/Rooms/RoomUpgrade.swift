import Database
import MatrixCore

/// Moving a room to another version (Client-Server API, "Room Upgrades").
extension RoomCreationService {
    /// State that goes along, in the order in which it is set; the power levels come first of all.
    private static let transferred = [
        "m.room.server_acl", "m.room.encryption", "m.room.name", "m.room.avatar", "m.room.topic",
        "m.room.guest_access", "m.room.history_visibility", "m.room.join_rules", "m.room.policy",
    ]
    /// Banned users that stay banned at most.
    private static let mostBans = 1_000

    /// What the new room gets of the old one.
    private struct Inheritance: Sendable {
        var request = Request()
        var bans: [(UserID, JSON)] = []
        var aliases: [RoomAlias] = []
        var canonicalAlias: JSON?
        var isPublished = false
        /// The levels that the new room ends up with, where it can't be set up with them.
        var levels: JSONObject?
    }

    /// Makes a room of another version in the place of one, and closes the old one.
    ///
    /// - Parameter additionalCreators: who stand beside the upgrading user as creators, in versions that know them.
    /// - Throws: `M_UNSUPPORTED_ROOM_VERSION`; `M_FORBIDDEN` if the user may not close the room.
    public func upgrade(
        _ roomID: RoomID, to versionName: String, additionalCreators: [UserID], by requester: Requester
    ) async throws -> RoomID {
        guard let version = RoomVersion.named(versionName) else {
            throw MatrixError(.unsupportedRoomVersion, "This server doesn't know room version \(versionName).")
        }
        guard let old = try await rooms.room(roomID) else { throw MembershipService.notInRoom }
        let inheritance = try await rooms.perform(in: old) { draft in
            try await self.inheritance(of: old, &draft, version, additionalCreators, requester)
        }
        let replacement = try await create(inheritance.request, by: requester)
        guard let new = try await rooms.room(replacement) else {
            throw DatabaseError.corrupt("the new room \(replacement) is missing")
        }
        try await rooms.perform(in: old) { draft in
            try await draft.append(
                "m.room.tombstone", stateKey: "",
                content: [
                    "body": "This room has been replaced", "replacement_room": .string(replacement.string),
                ], sender: requester.userID)
            try await self.close(&draft, requester)
        }
        try await move(inheritance, from: old, to: new, requester)
        return replacement
    }

    private func inheritance(
        of old: Room, _ draft: inout RoomDraft, _ version: RoomVersion, _ creators: [UserID], _ requester: Requester
    ) async throws -> Inheritance {
        guard try await draft.membership(of: requester.userID) == .join else { throw MembershipService.notInRoom }
        let levels = try await draft.powerLevels()
        guard levels.allows(requester.userID, toSend: "m.room.tombstone", isState: true) else {
            throw MatrixError.forbidden("Only who may close this room can upgrade it.")
        }
        var inheritance = Inheritance()
        inheritance.request.roomVersion = version.identifier
        let create = try await draft.state(.create)?.content
        var content: JSONObject = [:]
        for key in ["type", "m.federate"] { content[key] = create?[key]?.json }
        var predecessor: JSONObject = ["room_id": .string(old.roomID.string)]
        // Needless from version 12 on; clients of before still look for it.
        if let last = try await database.events(draft.record.extremities).last {
            predecessor["event_id"] = .string(last.eventID.string)
        }
        content["predecessor"] = .object(predecessor)
        let hasCreators = version.rules.authorization.creatorsHaveInfinitePower
        if hasCreators, !creators.isEmpty {
            content["additional_creators"] = .array(creators.map { .string($0.string) })
        }
        inheritance.request.creationContent = content
        for type in Self.transferred {
            guard let event = try await draft.shownState(StateKey(type)) else { continue }
            inheritance.request.initialState.append(InitialState(key: StateKey(type), content: event.content.json))
        }
        // A room that says nothing of guests lets none in, and a new one does.
        let guests = StateKey("m.room.guest_access")
        if try await draft.state(guests) == nil {
            inheritance.request.initialState.append(
                InitialState(key: guests, content: ["guest_access": "forbidden"]))
        }
        (inheritance.request.powerLevels, inheritance.levels) = try await self.levels(
            &draft, version, creators, requester)
        inheritance.canonicalAlias = try await draft.state(StateKey("m.room.canonical_alias"))?.content.json
        inheritance.aliases = try await database.aliases(of: old.nid)
        inheritance.isPublished = try await database.publishedRooms(.own).contains(old.nid)
        inheritance.bans = try await bans(in: old, &draft)
        return inheritance
    }

    /// The levels with which the new room is set up, and those that it ends up with if the upgrading user stands too low in
    /// them to set it up.
    private func levels(
        _ draft: inout RoomDraft, _ version: RoomVersion, _ creators: [UserID], _ requester: Requester
    ) async throws -> (first: JSONObject, last: JSONObject?) {
        // Versions before 10 allow levels that are written as texts.
        let stored = try await draft.state(.powerLevels)?.content.json ?? [:]
        var content = Self.wholeNumbers(stored).objectValue ?? [:]
        var users = content["users"]?.objectValue ?? [:]
        var events = content["events"]?.objectValue ?? [:]
        if version.rules.authorization.creatorsHaveInfinitePower {
            // Creators stand above all levels, and may not be listed; closing the room is theirs.
            for user in [requester.userID] + creators { users[user.string] = nil }
            if (events["m.room.tombstone"]?.integerValue ?? 0) < 150 { events["m.room.tombstone"] = 150 }
            content["users"] = .object(users)
            content["events"] = .object(events)
            return (content, nil)
        }
        let needed =
            (events.map { $0.1.integerValue ?? 0 }
            + ["state_default", "ban", "kick", "invite"].map { content[$0]?.integerValue ?? 50 }).max() ?? 50
        let usersDefault = content["users_default"]?.integerValue ?? 0
        // Who stood above all levels as a creator stands at the top where there is no such thing.
        let own = users[requester.userID.string]?.integerValue ?? usersDefault
        let isCreator = draft.version.rules.authorization.creatorsHaveInfinitePower && own == usersDefault
        if isCreator { users[requester.userID.string] = .integer(max(100, needed)) }
        let last = content
        if !isCreator, own < needed { users[requester.userID.string] = .integer(needed) }
        content["users"] = .object(users)
        return (content, !isCreator && own < needed ? last : nil)
    }

    /// Levels as numbers, wherever they are written as texts.
    private static func wholeNumbers(_ json: JSON) -> JSON {
        if let text = json.stringValue {
            return Int64(text.filter { !$0.isWhitespace }).map { .integer($0) } ?? json
        }
        guard let object = json.objectValue else { return json }
        return .object(JSONObject(object.map { ($0.key, wholeNumbers($0.value)) }))
    }

    private func bans(in old: Room, _ draft: inout RoomDraft) async throws -> [(UserID, JSON)] {
        let room = old.nid
        let banned = try await database.read { reader in
            try await self.database.users(in: room, .ban, limit: Self.mostBans, reader)
        }
        var bans: [(UserID, JSON)] = []
        for user in try await database.users(banned).values.sorted() {
            guard let event = try await draft.state(.member(user)) else { continue }
            bans.append((user, event.content.json))
        }
        return bans
    }

    /// Keeps people from talking on in the old room, as far as the user may.
    private func close(_ draft: inout RoomDraft, _ requester: Requester) async throws {
        guard var content = try await draft.state(.powerLevels)?.content.json.objectValue else { return }
        let level = max(50, (content["users_default"]?.integerValue ?? 0) + 1)
        for key in ["events_default", "invite"] {
            let present = content[key]?.integerValue ?? 0
            content[key] = .integer(max(present, level))
        }
        do {
            try await draft.append(
                "m.room.power_levels", stateKey: "", content: .object(content), sender: requester.userID)
        } catch let error as MatrixError where error.code == .forbidden {
            // Who may replace a room need not be allowed to change its levels.
        }
    }

    /// What is moved once the new room stands: bans, aliases, the listing, and what members have set for themselves.
    private func move(_ inheritance: Inheritance, from old: Room, to new: Room, _ requester: Requester) async throws {
        try await rooms.perform(in: new) { draft in
            for (user, content) in inheritance.bans {
                try await draft.append(
                    "m.room.member", stateKey: user.string, content: content, sender: requester.userID)
            }
            if let alias = inheritance.canonicalAlias {
                try await draft.append(
                    "m.room.canonical_alias", stateKey: "", content: alias, sender: requester.userID)
            }
            if let levels = inheritance.levels {
                try await draft.append(
                    "m.room.power_levels", stateKey: "", content: .object(levels), sender: requester.userID)
            }
        }
        var write = Write()
        for alias in inheritance.aliases { write.moveAlias(alias, to: new.nid) }
        if inheritance.isPublished {
            write.unpublish(old.nid)
            write.publish(new.nid)
        }
        if !write.isEmpty { try await database.write(write) }
        if inheritance.canonicalAlias != nil {
            do {
                _ = try await rooms.perform(in: old) { draft in
                    try await draft.append(
                        "m.room.canonical_alias", stateKey: "", content: [:], sender: requester.userID)
                }
            } catch let error as MatrixError where error.code == .forbidden {
                // The alias leads to the new room all the same.
            }
        }
        try await succession.carryOver(for: requester.nid, from: old, to: new)
    }
}
