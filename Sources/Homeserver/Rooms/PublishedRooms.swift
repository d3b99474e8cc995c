import Database
import MatrixCore

/// The rooms that are listed for everybody (Client-Server API, "Published room directory").
extension DirectoryService {
    /// Which of the listed rooms are wanted.
    public struct PublishedRoomsRequest: Sendable {
        public var limit: Int?
        public var since: String?
        public var searchTerm: String?
        /// Room types that are wanted; null stands for rooms without one. nil: all.
        public var roomTypes: [String?]?
        /// Whose list is wanted.
        public var lists: PublishedLists

        public init(
            limit: Int?, since: String?, searchTerm: String?, roomTypes: [String?]?, lists: PublishedLists = .own
        ) {
            self.limit = limit
            self.since = since
            self.searchTerm = searchTerm
            self.roomTypes = roomTypes
            self.lists = lists
        }
    }

    /// A room as the directory shows it.
    struct Listing: Sendable {
        var json: JSONObject
        var members: Int
        var roomType: String?
        var texts: [String]
    }

    private static let largestPage = 1_000
    private static let longestTerm = 1_024

    /// A page of the directory, largest rooms first.
    public func publishedRooms(_ request: PublishedRoomsRequest) async throws -> JSON {
        var offset = 0
        if let since = request.since {
            guard since.utf8.first == UInt8(ascii: "p"), let number = Int(since.dropFirst()), number >= 0 else {
                throw MatrixError.invalidParam("“since” is not a token that this server gave out.")
            }
            offset = number
        }
        var listings: [Listing] = []
        let term = request.searchTerm?.lowercased() ?? ""
        guard term.utf8.count <= Self.longestTerm else {
            throw MatrixError.invalidParam("What is searched for has \(Self.longestTerm) bytes at most.")
        }
        let types = request.roomTypes.map { Set($0.map { $0.map { ByteString($0) } }) }
        for nid in try await database.publishedRooms(request.lists) {
            let listing = try await recentListing(try await rooms.room(nid))
            if let types, !types.contains(listing.roomType.map { ByteString($0) }) { continue }
            if term.isEmpty || listing.texts.contains(where: { $0.lowercased().contains(term) }) {
                listings.append(listing)
            }
        }
        listings.sort { $0.members > $1.members }
        let limit = min(max(request.limit ?? Self.largestPage, 1), Self.largestPage)
        let page = listings.dropFirst(offset).prefix(limit)
        var answer: JSONObject = [
            "chunk": .array(page.map { .object($0.json) }),
            "total_room_count_estimate": .integer(Int64(listings.count)),
        ]
        if offset + page.count < listings.count { answer["next_batch"] = .string("p\(offset + page.count)") }
        if offset > 0 { answer["prev_batch"] = .string("p\(max(0, offset - limit))") }
        return .object(answer)
    }

    /// The rooms that another server lists (Server-Server API, "Public Room Directory").
    public func publishedRooms(_ request: PublishedRoomsRequest, of server: ServerName) async throws -> JSON {
        var body: JSONObject = ["limit": .integer(Int64(min(max(request.limit ?? 100, 1), 100)))]
        if let since = request.since { body["since"] = .string(since) }
        var filter = JSONObject()
        if let term = request.searchTerm { filter["generic_search_term"] = .string(term) }
        if let types = request.roomTypes {
            filter["room_types"] = .array(types.map { $0.map { .string($0) } ?? .null })
        }
        if !filter.isEmpty { body["filter"] = .object(filter) }
        switch request.lists {
        case .own: break
        case .all: body["include_all_networks"] = true
        case .network(let network, let appservice):
            body["third_party_instance_id"] = .string(network.isEmpty ? appservice : "\(appservice)|\(network)")
        }
        do {
            let answer = try await client.post("/_matrix/federation/v1/publicRooms", .object(body), to: server)
            // Only what is a room is shown (A17).
            let rooms = answer["chunk"]?.elements.filter { entry in
                entry["room_id"]?.string.flatMap({ RoomID($0) }) != nil && entry["num_joined_members"]?.integer != nil
            }.prefix(500).map { entry -> JSON in
                var json = entry.json
                for flag in ["world_readable", "guest_can_join"] where entry[flag]?.bool == nil { json[flag] = false }
                return json
            }
            var list: JSON = ["chunk": .array(rooms ?? [])]
            for token in ["next_batch", "prev_batch"] {
                if let text = answer[token]?.string { list[token] = .string(text) }
            }
            if let total = answer["total_room_count_estimate"]?.integer {
                list["total_room_count_estimate"] = .integer(total)
            }
            return list
        } catch let error as FederationFailure {
            throw error.clientError
        }
    }

    /// What a room showed of itself within the last minute: anybody may ask for the list, of all rooms at once. A change of its state
    /// shows at once, what a redaction takes away within the minute.
    private func recentListing(_ room: Room) async throws -> Listing {
        let (state, now) = (room.record.state, rooms.context.surroundings.now())
        let known = listings.withLock { $0[room.nid] }
        if let known, known.state == state, known.until > now { return known.listing }
        let listing = try await listing(room)
        listings.withLock {
            $0.insert(
                KnownListing(state: state, until: now + Self.listingMemory, listing: listing), for: room.nid, size: 1)
        }
        return listing
    }

    /// A listing as it was made of a state.
    struct KnownListing: Sendable {
        let state: StateNID
        let until: Int64
        let listing: Listing
    }

    /// Milliseconds.
    private static let listingMemory: Int64 = 60_000

    func listing(_ room: Room) async throws -> Listing {
        let keys = [
            StateKey.create, StateKey("m.room.name"), StateKey("m.room.topic"), StateKey("m.room.avatar"),
            StateKey("m.room.canonical_alias"), StateKey.joinRules, StateKey.historyVisibility,
            StateKey("m.room.guest_access"),
        ]
        let numbers = try await database.existingNumbers(ofStateKeys: keys)
        return try await database.read { reader in
            let tree = StateTree(rows: self.database.stateRows, room: room.nid)
            var holders: [EventNID: StateKey] = [:]
            for (key, number) in numbers {
                if let nid = try await tree.event(for: number, in: room.record.state, reader) { holders[nid] = key }
            }
            var content: [StateKey: JSONView] = [:]
            for stored in try await self.database.events(Array(holders.keys), reader) {
                guard let key = holders[stored.nid] else { continue }
                content[key] = try self.rooms.context.shownContent(of: stored, room.version)
            }
            let members = try await self.database.count(of: .join, in: room.nid, reader)
            let visibility = content[.historyVisibility]?["history_visibility"]?.string
            var json: JSONObject = [
                "room_id": .string(room.roomID.string), "num_joined_members": .integer(Int64(members)),
                "world_readable": .bool(visibility == "world_readable"),
                "guest_can_join": .bool(content[keys[7]]?["guest_access"]?.string == "can_join"),
            ]
            let texts = [
                ("name", content[keys[1]]?["name"]?.string), ("topic", content[keys[2]]?["topic"]?.string),
                ("canonical_alias", content[keys[4]]?["alias"]?.string),
            ]
            let others = [
                ("avatar_url", content[keys[3]]?["url"]?.string),
                ("join_rule", content[.joinRules]?["join_rule"]?.string),
                ("room_type", content[.create]?["type"]?.string),
            ]
            for (name, text) in texts + others { if let text, !text.isEmpty { json[name] = .string(text) } }
            return Listing(
                json: json, members: members, roomType: content[.create]?["type"]?.string, texts: texts.compactMap(\.1))
        }
    }

    /// Whether a room is listed.
    public func isPublished(_ roomID: RoomID) async throws -> Bool {
        guard let room = try await rooms.room(roomID) else {
            throw MatrixError.notFound("This server doesn't know the room.")
        }
        return try await database.publishedRooms(.own).contains(room.nid)
    }

    /// Lists a room, or takes it off the list: who may name the room may.
    public func setPublished(_ isPublished: Bool, _ roomID: RoomID, by requester: Requester) async throws {
        guard let room = try await rooms.room(roomID) else {
            throw MatrixError.notFound("This server doesn't know the room.")
        }
        let mayChange = try await rooms.perform(in: room) { draft in
            guard try await draft.membership(of: requester.userID) == .join else { return false }
            return try await draft.powerLevels().allows(
                requester.userID, toSend: "m.room.canonical_alias", isState: true)
        }
        guard mayChange else { throw MatrixError.forbidden("Only who may name the room can list it.") }
        var write = Write()
        if isPublished { write.publish(room.nid) } else { write.unpublish(room.nid) }
        try await database.write(write)
    }

    /// Lists a room for a network that an application service connects, or takes it off that list (Application Service API,
    /// "Application service room directories").
    ///
    /// - Throws: `M_FORBIDDEN` for everybody else.
    public func setPublished(
        _ isPublished: Bool, _ roomID: RoomID, network: String, by requester: Requester
    ) async throws {
        guard let appservice = requester.appservice else {
            throw MatrixError.forbidden("Only application services have such lists.")
        }
        guard network.utf8.count <= 255 else {
            throw MatrixError.invalidParam("The name of a network has at most 255 bytes.")
        }
        guard let room = try await rooms.room(roomID) else {
            throw MatrixError.notFound("This server doesn't know the room.")
        }
        var write = Write()
        if isPublished {
            write.publish(room.nid, for: network, of: appservice)
        } else {
            write.unpublish(room.nid, for: network, of: appservice)
        }
        try await database.write(write)
    }
}
