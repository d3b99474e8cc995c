import Database
import MatrixCore

/// The extensions of an answer of sliding sync (MSC3575, "Extensions"; MSC3884, MSC3885, MSC3959, MSC3960, MSC3961).
struct SlidingExtensions {
    var devices = Devices()
    var accountData: AccountData?
    var typing: [(room: RoomID, users: [UserID])]?
    var receipts: [(room: RoomID, content: JSON)] = []
    /// By room, encoded.
    var stickyEvents: [(room: RoomID, events: [UInt8])] = []
    /// How far sticky events are told; nil: all are.
    var stickyRest: StickyDelivery.Place?
    var threadSubscriptions: ThreadSubscriptionPage?
    var profiles = ProfileUpdates()

    /// Whether there is nothing that is worth waking a client for.
    var isEmpty: Bool {
        devices.isEmpty && (accountData?.isEmpty ?? true) && (typing?.isEmpty ?? true) && receipts.isEmpty
            && stickyEvents.isEmpty && stickyRest == nil && (threadSubscriptions?.isEmpty ?? true) && profiles.isEmpty
    }

    /// What belongs to the device.
    struct Devices {
        var messages: ToDeviceService.Page?
        /// The token behind the messages.
        var messagesEnd = ""
        var counts: DeviceKeyCounts?
        var lists = DeviceListChanges()
        /// With whom a room is shared now and wasn't, or was and isn't: for their profiles.
        var movements = DeviceListChanges()

        var isEmpty: Bool { (messages?.events.isEmpty ?? true) && lists.isEmpty }

        static func read(_ builder: SlidingBuilder, _ memberships: [RoomMembership]) async throws -> Devices {
            let sync = builder.service.devices
            let requester = builder.requester
            var found = Devices()
            if let wanted = builder.request.extensions.toDevice {
                let since = wanted.since.flatMap { SyncToken.toDevicePosition($0, epoch: builder.upTo.epoch) }
                let page = try await sync.messages(for: requester, after: since ?? 0, upTo: builder.upTo.position)
                found.messages = page
                found.messagesEnd = SyncToken.toDevice(
                    page.rest ?? builder.upTo.position, epoch: builder.upTo.epoch)
            }
            if builder.request.extensions.isEncryptionEnabled {
                found.counts = try await sync.keyCounts(of: requester)
                if let since = builder.since, since.extensions.contains(.encryption) {
                    found.lists = try await sync.deviceLists(
                        for: requester, since: since.place.position, memberships)
                }
            }
            if builder.request.extensions.profiles != nil, let since = builder.since,
                since.extensions.contains(.profiles)
            {
                found.movements = try await sync.deviceLists(for: requester, since: since.place.position, memberships)
            }
            return found
        }
    }

    struct AccountData {
        var global: [AccountDataEntry] = []
        var rooms: [(room: RoomID, entries: [AccountDataEntry])] = []

        var isEmpty: Bool { global.isEmpty && rooms.isEmpty }
    }

    // MARK: - Reading

    /// - Parameters:
    ///   - told: the rooms of this answer, with what the connection will know of them.
    ///   - introduced: people whom rooms show that are told for the first time.
    static func read(
        _ builder: SlidingBuilder, _ devices: Devices, told: [RoomNID: SentRoom], introducing introduced: Set<UserNID>,
        _ memberships: [RoomMembership], _ reader: any Reader
    ) async throws -> SlidingExtensions {
        var extensions = SlidingExtensions(devices: devices)
        if let scope = builder.request.extensions.accountData {
            extensions.accountData = try await accountData(builder, scope, told, reader)
        }
        if let scope = builder.request.extensions.typing {
            extensions.typing = try await typing(builder, scope, told, memberships)
        }
        if builder.request.extensions.areStickyEventsEnabled {
            (extensions.stickyEvents, extensions.stickyRest) = try await stickyEvents(builder, memberships, reader)
        }
        if let wanted = builder.request.extensions.profiles {
            extensions.profiles = try await profiles(builder, wanted, devices, introduced, reader)
        }
        if let wanted = builder.request.extensions.threadSubscriptions {
            let since = builder.since.flatMap {
                $0.extensions.contains(.threadSubscriptions) ? $0.place.position : nil
            }
            if since == nil || builder.service.activity.mayHaveChanged(builder.requester.nid, after: since ?? 0) {
                extensions.threadSubscriptions = try await ThreadSubscriptionPage.read(
                    of: builder.requester.nid, after: since ?? 0, upTo: builder.upTo.position, limit: wanted.limit,
                    includesEnded: since != nil, builder.service.rooms, reader)
            }
        }
        return extensions
    }

    /// Account data of the account, and of all rooms that the connection knows: also of those that no list shows any more,
    /// since a client which is shown them again is not told anew.
    private static func accountData(
        _ builder: SlidingBuilder, _ scope: SlidingRequest.Scope, _ told: [RoomNID: SentRoom], _ reader: any Reader
    ) async throws -> AccountData {
        let service = builder.service
        let user = builder.requester.nid
        let since = builder.since.flatMap { $0.extensions.contains(.accountData) ? $0.place.position : nil }
        let known = builder.connection.rooms
        let new = since == nil ? Set(known.keys).union(told.keys) : Set(told.keys).subtracting(known.keys)
        var found = AccountData()
        var ofRooms: [RoomNID: [AccountDataEntry]] = [:]
        if since == nil || service.activity.mayHaveChanged(user, after: since ?? 0) {
            let all = try await service.database.accountData(
                of: user, after: since ?? 0, upTo: builder.upTo.position, reader)
            found.global = try all.filter { $0.room == nil }.map(service.sync.pushRules.shown)
            for entry in all {
                guard let room = entry.room, known[room] != nil || new.contains(room) else { continue }
                ofRooms[room, default: []].append(entry)
            }
        }
        if since == nil, !found.global.contains(where: { $0.type == PushRuleService.type }) {
            found.global.append(service.sync.pushRules.unchanged(for: builder.requester.userID))
        }
        if since != nil {
            // What was set before the client knew the room.
            for room in new {
                ofRooms[room] = try await service.database.accountData(
                    of: user, in: room, upTo: builder.upTo.position, reader)
            }
        }
        for (room, entries) in ofRooms.sorted(by: { $0.key < $1.key }) where !entries.isEmpty {
            let roomID = try await service.rooms.room(room).roomID
            if builder.admits(roomID, room, scope) { found.rooms.append((roomID, entries)) }
        }
        return found
    }

    private static func typing(
        _ builder: SlidingBuilder, _ scope: SlidingRequest.Scope, _ told: [RoomNID: SentRoom],
        _ memberships: [RoomMembership]
    ) async throws -> [(room: RoomID, users: [UserID])] {
        let service = builder.service
        let covered = builder.since.flatMap { $0.extensions.contains(.typing) ? $0.place : nil }
        let toldUpTo = covered?.ephemeral(of: service.run)
        let since = toldUpTo ?? 0
        let changed = service.typing.rooms(changedSince: since)
        // After a restart clients may still show somebody who was typing before.
        let isOfOtherRun = covered != nil && toldUpTo == nil
        if changed.isEmpty, !isOfOtherRun, told.isEmpty { return [] }
        var found: [(RoomID, [UserID])] = []
        for membership in memberships where membership.membership == .join {
            let room = membership.room
            if !isOfOtherRun, told[room] == nil, changed[room] == nil { continue }
            let isKnown = builder.connection.rooms[room]?.flags.contains(.joined) ?? false
            guard isKnown || told[room] != nil else { continue }
            let users: [UserID]
            if let now = changed[room] {
                users = now
            } else if !isKnown {
                // Whoever began before the client knew the room.
                users = service.typing.users(in: room, changedSince: 0) ?? []
            } else if isOfOtherRun {
                users = []
            } else {
                continue
            }
            // To who didn't know the room, that nobody types is no news.
            if users.isEmpty, !isKnown || covered == nil { continue }
            let roomID = try await service.rooms.room(room).roomID
            if builder.admits(roomID, room, scope) { found.append((roomID, users)) }
        }
        return found
    }

    /// What people show of themselves: those whom new rooms show, and whatever has changed of those with whom a room is shared.
    private static func profiles(
        _ builder: SlidingBuilder, _ wanted: SlidingRequest.Profiles, _ devices: Devices,
        _ introduced: Set<UserNID>, _ reader: any Reader
    ) async throws -> ProfileUpdates {
        let before = builder.since.flatMap { $0.extensions.contains(.profiles) ? $0 : nil }
        let since = before?.place.position
        var introduced = introduced
        // “If the list of `fields` expands to cover a new field ID, those fields should be sent down for all users that are
        // within the current room subset.” That it is begun with later than the connection comes to the same.
        if builder.since != nil, before?.profileFields != wanted.digest {
            introduced.formUnion(try await peopleShown(by: builder, wanted.scope, reader))
        }
        if let since, introduced.isEmpty, devices.movements.isEmpty,
            !builder.service.activity.profilesMayHaveChanged(after: since)
        {
            return ProfileUpdates()
        }
        return try await ProfileUpdates.read(
            .init(
                requester: builder.requester, fields: wanted.fields, since: since, upTo: builder.upTo.position,
                introduced: introduced, lists: devices.movements),
            builder.database, reader)
    }

    /// The people whom the client has been shown in the rooms that it is shown now.
    private static func peopleShown(
        by builder: SlidingBuilder, _ scope: SlidingRequest.Scope, _ reader: any Reader
    ) async throws -> Set<UserNID> {
        var people: Set<UserNID> = []
        for (room, shown) in builder.shownRooms.sorted(by: { $0.key < $1.key }) {
            guard people.count < ProfileUpdates.most, shown.membership.membership == .join,
                let sent = builder.connection.rooms[room], sent.flags.contains(.joined)
            else { continue }
            let roomID = try await builder.service.rooms.room(room).roomID
            guard scope.admits(roomID, in: shown.lists, isSubscribed: shown.isSubscribed) else { continue }
            if shown.config.required.lazyMembers {
                let client = builder.lazyClient(in: room)
                let known = builder.service.lazyMembers.known(to: client, at: sent.position).keys.sorted()
                people.formUnion(try await builder.database.members(among: known, in: room, reader))
            } else {
                people.formUnion(
                    try await builder.database.users(in: room, .join, limit: ProfileUpdates.most, reader))
            }
        }
        return people
    }

    /// The sticky events of all rooms that the user is in (MSC4354), of those just joined all there are.
    private static func stickyEvents(
        _ builder: SlidingBuilder, _ memberships: [RoomMembership], _ reader: any Reader
    ) async throws -> ([(room: RoomID, events: [UInt8])], StickyDelivery.Place?) {
        let service = builder.service
        let since = builder.since.flatMap { $0.extensions.contains(.stickyEvents) ? $0.place : nil }
        let joined = memberships.filter { $0.membership == .join }
        let delivery = try await StickyDelivery.read(
            .init(
                user: builder.requester.userID, joined: joined,
                changed: since.map { service.activity.changed(joined.map(\.room), after: $0.position) },
                since: since?.position ?? 0, rest: since?.sticky, upTo: builder.upTo.position, now: builder.now,
                lastChanges: builder.lastChanges),
            service.rooms, reader)
        var found: [(RoomID, [UInt8])] = []
        for (number, events) in delivery.events.sorted(by: { $0.key < $1.key }) {
            let room = try await service.rooms.room(number)
            let events = try await StickyEvents.read(events, for: builder.requester.nid, service.context, reader)
            if events.isEmpty { continue }
            var writer = JSONWriter(capacity: 1_024)
            writer.beginArray()
            var visibility = try await EventVisibility(
                service.context, room: room, user: builder.requester.userID, nid: builder.requester.nid,
                access: RoomAccess(leftAt: nil, membership: .join), reader: reader)
            let page = try await service.events.page(
                events, for: builder.requester.nid, seenBy: &visibility, reader)
            for event in page.events {
                try service.events.write(event, of: page, version: room.version, for: builder.audience, into: &writer)
            }
            writer.endArray()
            found.append((room.roomID, writer.bytes))
        }
        return (found, delivery.rest)
    }

    // MARK: - Writing

    func write(into writer: inout JSONWriter) {
        if let messages = devices.messages {
            writer.key("to_device")
            writer.value(["next_batch": .string(devices.messagesEnd), "events": .array(messages.events)])
        }
        if let counts = devices.counts {
            writer.key("e2ee")
            writer.beginObject()
            SyncDevices(counts: counts, lists: devices.lists).write(into: &writer)
            writer.endObject()
        }
        if let accountData {
            writer.key("account_data")
            writer.beginObject()
            writer.key("global")
            Self.write(accountData.global, into: &writer)
            writer.key("rooms")
            writer.beginObject()
            for (room, entries) in accountData.rooms {
                writer.key(room.string)
                Self.write(entries, into: &writer)
            }
            writer.endObject()
            writer.endObject()
        }
        if !receipts.isEmpty {
            let rooms = receipts.map { ($0.room.string, ["type": "m.receipt", "content": $0.content] as JSON) }
            writer.key("receipts")
            writer.value(["rooms": .object(JSONObject(rooms))])
        }
        if let typing, !typing.isEmpty {
            let rooms = typing.map { room, users in
                let content: JSON = ["user_ids": .array(users.map { .string($0.string) })]
                return (room.string, ["type": "m.typing", "content": content] as JSON)
            }
            writer.key("typing")
            writer.value(["rooms": .object(JSONObject(rooms))])
        }
        writeProposals(into: &writer)
    }

    private func writeProposals(into writer: inout JSONWriter) {
        if !stickyEvents.isEmpty {
            let rooms = stickyEvents.map { ($0.room.string, ["events": .raw($0.events)] as JSON) }
            writer.key("org.matrix.msc4354.sticky_events")
            writer.value(["rooms": .object(JSONObject(rooms))])
        }
        if !profiles.isEmpty {
            writer.key("org.matrix.msc4262.profiles")
            writer.value(["users": profiles.slidingJSON])
        }
        if let threadSubscriptions, !threadSubscriptions.isEmpty {
            writer.key("io.element.msc4308.thread_subscriptions")
            writer.value(threadSubscriptions.json(endedBy: "prev_batch"))
        }
    }

    private static func write(_ entries: [AccountDataEntry], into writer: inout JSONWriter) {
        writer.beginArray()
        for entry in entries {
            writer.value(["type": .string(entry.type), "content": .raw(entry.content)])
        }
        writer.endArray()
    }
}

extension SlidingBuilder {
    /// By what is known which members of a room the connection has told.
    func lazyClient(in room: RoomNID) -> LazyMembers.Client {
        LazyMembers.Client(user: requester.nid, deviceID: "\(requester.deviceID)\0\(connectionName)", room: room)
    }

    /// Whether an extension that is confined to some lists and subscriptions tells of a room.
    func admits(_ roomID: RoomID, _ room: RoomNID, _ scope: SlidingRequest.Scope) -> Bool {
        if scope.isWhole { return true }
        guard let shown = shownRooms[room] else { return false }
        return scope.admits(roomID, in: shown.lists, isSubscribed: shown.isSubscribed)
    }
}

extension SyncToken {
    /// A token behind messages to a device (MSC3885): `d1-<epoch>-<position>`.
    static func toDevice(_ position: Int64, epoch: String) -> String { "d1-\(epoch)-\(position)" }

    /// The position that such a token stands for; nil if it is none, or of before a restore.
    static func toDevicePosition(_ text: String, epoch: String) -> Int64? {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 3, parts[0] == "d1", parts[1] == epoch, let position = Int64(parts[2]), position >= 0
        else { return nil }
        return position
    }
}
