import Database
import Logging
import MatrixCore

/// Builds the answer to one sync, for what lies between two positions.
struct SyncBuilder {
    let service: SyncService
    let requester: Requester
    /// nil: an initial sync.
    let since: SyncToken?
    let upTo: SyncToken
    let filter: SyncFilter
    let fullState: Bool
    let wantsStateAfter: Bool
    let now: Int64
    /// From where on changes of lists of devices are told: from the beginning to a client whose token was of before a restore.
    let listsSince: Int64?
    /// When each room that is told of changed last.
    private(set) var lastChanges: [RoomNID: Int64] = [:]

    var database: Database { service.database }
    var context: RoomContext { service.context }
    var audience: ClientEvents.Audience {
        ClientEvents.Audience(
            requester, now: now, fields: filter.fields, isFederationFormat: filter.wantsFederationFormat)
    }
    /// Everything up to here is known to the client.
    var sincePosition: Int64 { since?.position ?? 0 }

    /// - Returns: the encoded answer, and whether it tells nothing new.
    mutating func build(_ memberships: [RoomMembership]) async throws -> ([UInt8], isEmpty: Bool) {
        let candidates = candidates(memberships)
        lastChanges = service.activity.lastChanges(of: candidates.map(\.room))
        return try await look(candidates, memberships)
    }

    private func look(
        _ candidates: [RoomMembership], _ memberships: [RoomMembership]
    ) async throws -> ([UInt8], isEmpty: Bool) {
        let ownChanged = activityConcernsUser
        let presence = try await presence(memberships)
        let devices = try await devices(memberships)
        let wantsProfiles = wantsProfiles(devices)
        if candidates.isEmpty, !ownChanged, presence.isEmpty, !wantsProfiles, since?.sticky == nil {
            return (emptyAnswer(devices), devices.isEmpty)
        }
        return try await database.read { reader in
            var accountData: [AccountDataEntry] = []
            if ownChanged {
                accountData = try await self.database.accountData(
                    of: self.requester.nid, after: self.sincePosition, upTo: self.upTo.position, reader
                ).map(self.service.pushRules.shown)
            }
            if self.since == nil, !accountData.contains(where: { $0.room == nil && $0.type == PushRuleService.type }) {
                accountData.append(self.service.pushRules.unchanged(for: self.requester.userID))
            }
            let profiles = wantsProfiles ? try await self.profiles(devices, reader) : ProfileUpdates()
            return try await self.build(
                candidates, accountData, presence, profiles, memberships, devices, reader)
        }
    }

    /// Whether there may be something to tell of others' profiles.
    private func wantsProfiles(_ devices: SyncDevices) -> Bool {
        if filter.profileFields.isEmpty { return false }
        return since == nil || !devices.lists.isEmpty || service.activity.profilesMayHaveChanged(after: sincePosition)
    }

    private func profiles(_ devices: SyncDevices, _ reader: any Reader) async throws -> ProfileUpdates {
        var introduced: Set<UserNID> = []
        if since == nil {
            introduced = Set(
                try await database.accounts(sharingWith: requester.nid, limit: ProfileUpdates.most, reader))
        }
        return try await ProfileUpdates.read(
            .init(
                requester: requester, fields: filter.profileFields, since: since?.position, upTo: upTo.position,
                introduced: introduced, lists: devices.lists),
            database, reader)
    }

    private var activityConcernsUser: Bool {
        since == nil || service.activity.mayHaveChanged(requester.nid, after: sincePosition)
    }

    /// The memberships that there may be something to tell about.
    private func candidates(_ memberships: [RoomMembership]) -> [RoomMembership] {
        guard since != nil, !fullState else { return memberships.filter(isRemembered) }
        let joined = memberships.filter { $0.membership == .join }.map(\.room)
        let changed = service.activity.changed(joined, after: sincePosition)
        return memberships.filter { membership in
            if !isRemembered(membership) { return false }
            if membership.position > sincePosition { return true }
            return membership.membership == .join
                && (changed.contains(membership.room) || typingChanged(in: membership.room) != nil)
        }
    }

    /// Of a room that was forgotten only the leaving is told, to a client that may not know it yet.
    private func isRemembered(_ membership: RoomMembership) -> Bool {
        !membership.forgotten || since != nil && membership.position > sincePosition
    }

    /// Who is typing, if the client doesn't know yet.
    ///
    /// - Parameter isNew: whether the client didn't know the room at all.
    func typingChanged(in room: RoomNID, isNew: Bool = false) -> [UserID]? {
        guard let since, !isNew else {
            return service.typing.users(in: room, changedSince: 0).flatMap { $0.isEmpty ? nil : $0 }
        }
        if let told = since.ephemeral(of: service.run) { return service.typing.users(in: room, changedSince: told) }
        // The client may still show somebody who was typing when another process told it so.
        return service.typing.users(in: room, changedSince: 0) ?? []
    }

    /// The `m.presence` events that the client doesn't know yet.
    private func presence(_ memberships: [RoomMembership]) async throws -> [JSON] {
        let serial = since?.ephemeral(of: service.run) ?? 0
        guard filter.presence.admits(type: "m.presence"), service.presence.mayHaveChanged(since: serial) else {
            return []
        }
        let rooms = memberships.filter { $0.membership == .join }.map(\.room)
        let changed = service.presence.changed(since: serial, in: rooms, for: requester.nid)
        let names = try await database.users(changed.map(\.user))
        let ignored = try await context.ignored.list(of: requester.nid)
        return changed.compactMap { user, content in
            guard let name = names[user], !ignored.contains(user), filter.presence.admits(sender: name.string) else {
                return nil
            }
            return ["type": "m.presence", "sender": .string(name.string), "content": .object(content)]
        }
    }

    private func emptyAnswer(_ devices: SyncDevices) -> [UInt8] {
        var writer = JSONWriter(capacity: 256)
        writer.beginObject()
        writer.key("next_batch")
        writer.string(nextBatch(devices))
        devices.write(into: &writer)
        writer.endObject()
        return writer.bytes
    }

    private func build(
        _ candidates: [RoomMembership], _ accountData: [AccountDataEntry], _ presence: [JSON],
        _ profiles: ProfileUpdates, _ memberships: [RoomMembership], _ devices: SyncDevices, _ reader: any Reader
    ) async throws -> ([UInt8], isEmpty: Bool) {
        var join = JSONWriter(capacity: 16_384), invite = JSONWriter(), knock = JSONWriter(), leave = JSONWriter()
        join.beginObject()
        invite.beginObject()
        knock.beginObject()
        leave.beginObject()
        var counts = (join: 0, invite: 0, knock: 0, leave: 0)
        let ofRooms = Dictionary(grouping: accountData.filter { $0.room != nil }) { $0.room! }
        var pending = candidates
        let sticky = try await sticky(candidates, memberships, reader)
        // Rooms of which only account data changed, or of which sticky events are left to be told.
        let listed = Set(candidates.map(\.room))
        pending += memberships.filter {
            !$0.forgotten && (ofRooms[$0.room] != nil || sticky.events[$0.room] != nil) && !listed.contains($0.room)
        }
        for membership in pending {
            let room = try await service.rooms.room(membership.room)
            guard filter.rooms.admits(room.roomID) else { continue }
            do {
                switch membership.membership {
                case .join:
                    let part = SyncRoom(
                        builder: self, room: room, membership: membership, accountData: ofRooms[room.nid] ?? [],
                        stickyEvents: sticky.events[room.nid] ?? [])
                    if try await part.write(safelyInto: &join, reader) { counts.join += 1 }
                case .leave, .ban:
                    guard showsLeft(membership) else { continue }
                    let part = SyncRoom(
                        builder: self, room: room, membership: membership, accountData: ofRooms[room.nid] ?? [],
                        stickyEvents: sticky.events[room.nid] ?? [])
                    if try await part.write(safelyInto: &leave, reader) { counts.leave += 1 }
                case .invite:
                    guard membership.position > sincePosition || fullState else { continue }
                    let wanted = try await WantedInvitations(of: requester.nid, context)
                    guard try await wanted.contain(membership, { try await self.database.events($0, reader) }) else {
                        continue
                    }
                    try await writeStripped(membership, room, "invite_state", into: &invite, reader)
                    counts.invite += 1
                case .knock:
                    guard membership.position > sincePosition || fullState else { continue }
                    try await writeStripped(membership, room, "knock_state", into: &knock, reader)
                    counts.knock += 1
                }
            } catch DatabaseError.corrupt(let reason) {
                // One sick room must not keep its members from all others.
                service.logger.error(
                    "a room was left out of a sync", metadata: ["room": "\(room.roomID)", "reason": "\(reason)"])
            }
        }
        join.endObject()
        invite.endObject()
        knock.endObject()
        leave.endObject()
        let global = accountData.filter { $0.room == nil && filter.accountData.admits(type: $0.type) }
        var writer = JSONWriter(capacity: join.bytes.count + 1_024)
        writer.beginObject()
        writer.key("next_batch")
        writer.string(nextBatch(devices, sticky.rest))
        devices.write(into: &writer)
        if !global.isEmpty {
            writer.key("account_data")
            Self.write(global, into: &writer)
        }
        if !presence.isEmpty {
            writer.key("presence")
            writer.value(["events": .array(presence)])
        }
        if !profiles.isEmpty {
            writer.key("org.matrix.msc4429.users")
            writer.value(profiles.json)
        }
        let total = counts.join + counts.invite + counts.knock + counts.leave
        if total > 0 {
            writer.key("rooms")
            writer.beginObject()
            for (name, count, part) in [
                ("join", counts.join, join), ("invite", counts.invite, invite), ("knock", counts.knock, knock),
                ("leave", counts.leave, leave),
            ] where count > 0 {
                writer.key(name)
                writer.raw(part.bytes)
            }
            writer.endObject()
        }
        writer.endObject()
        return (
            writer.bytes,
            total == 0 && global.isEmpty && presence.isEmpty && devices.isEmpty
                && profiles.isEmpty && sticky.rest == nil
        )
    }

    private func sticky(
        _ candidates: [RoomMembership], _ memberships: [RoomMembership], _ reader: any Reader
    ) async throws -> StickyDelivery {
        // What is left to be told may be of any room; else nothing has come but in the candidates.
        let mayBeAnywhere = since == nil || since?.sticky != nil
        let joined = (mayBeAnywhere ? memberships : candidates).filter { $0.membership == .join }
        return try await StickyDelivery.read(
            .init(
                user: requester.userID, joined: joined, changed: since == nil ? nil : Set(candidates.map(\.room)),
                since: sincePosition, rest: since?.sticky, upTo: upTo.position, now: now, lastChanges: lastChanges),
            service.rooms, reader)
    }

    /// Whether a room that the user has left is told of: when it is news, or when the filter asks for it.
    private func showsLeft(_ membership: RoomMembership) -> Bool {
        if since != nil, membership.position > sincePosition { return true }
        return since == nil || fullState ? filter.includesLeft : false
    }

    /// Writes account data as `{"events": […]}`.
    static func write(_ entries: [AccountDataEntry], into writer: inout JSONWriter) {
        writer.beginObject()
        writer.key("events")
        writer.beginArray()
        for entry in entries {
            writer.beginObject()
            writer.key("type")
            writer.string(entry.type)
            writer.key("content")
            writer.raw(entry.content)
            writer.endObject()
        }
        writer.endArray()
        writer.endObject()
    }

    private func writeStripped(
        _ membership: RoomMembership, _ room: Room, _ name: String, into writer: inout JSONWriter, _ reader: any Reader
    ) async throws {
        var events = JSONWriter(capacity: 2_048)
        try await StrippedState.write(membership, room, service.events, into: &events, reader)
        writer.key(room.roomID.string)
        writer.beginObject()
        writer.key(name)
        writer.beginObject()
        writer.key("events")
        writer.raw(events.bytes)
        writer.endObject()
        writer.endObject()
    }
}
