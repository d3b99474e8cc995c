import Database
import MatrixCore
import Synchronization

/// The rooms below a space (Client-Server API, "Discovering rooms within spaces").
///
/// A walk goes depth first, children in the order in which clients show them, and comes to each room once, however many
/// ways lead there: a space within itself ends the way, not the walk. Nothing of a walk is kept between its pages; a token
/// says how many rooms were shown, and the next page goes the same way again without looking at what rooms are called.
public final class SpaceHierarchy: Sendable {
    let directory: DirectoryService
    let remote: RemoteSpaces
    var rooms: RoomRegistry { directory.rooms }
    var database: Database { rooms.database }

    /// What a space's state says of its children, by its state: walking a second page reads no state again. The lock
    /// protects the cache alone.
    private let children = Mutex(BoundedCache<ChildrenKey, [Child]>(capacity: 50_000))

    private struct ChildrenKey: Hashable {
        let room: RoomNID
        let state: StateNID
    }

    /// What a space says of one of its children.
    struct Child: Sendable {
        let room: RoomID
        /// Servers by which the room can be found; never empty.
        let via: [ServerName]
        let isSuggested: Bool
        /// In the stripped form with a timestamp.
        let json: JSON
    }

    public static let defaultLimit = 50
    static let largestPage = 100
    /// How deep a walk goes whatever the client asks for.
    static let mostDepth = 20
    /// Rooms that one walk comes to, those left out included: its last page costs reading the children of as many.
    static let mostRooms = 2_000
    /// Children of one space that count, in their order.
    static let mostChildren = 1_000

    /// Rooms that other servers are asked about for one page.
    private static let mostAsked = 50

    init(directory: DirectoryService, remote: RemoteSpaces) {
        self.directory = directory
        self.remote = remote
    }

    /// A room of a hierarchy: one that this server is in, or as another server shows it.
    private enum Node {
        case own(Room)
        case other(RemoteSpaces.Entry)
    }

    /// What part of a hierarchy is wanted.
    public struct Request: Sendable {
        public var limit: Int
        public var maxDepth: Int?
        public var suggestedOnly: Bool
        public var from: String?

        public init(limit: Int, maxDepth: Int?, suggestedOnly: Bool, from: String?) {
            self.limit = limit
            self.maxDepth = maxDepth
            self.suggestedOnly = suggestedOnly
            self.from = from
        }
    }

    /// A page of the hierarchy (`GET /rooms/{roomId}/hierarchy`).
    ///
    /// - Throws: `M_FORBIDDEN` if the requester may not know of the space itself; what they may not know of below it is
    ///   left out. `M_INVALID_PARAM` for a token that belongs to another walk.
    public func page(of space: RoomID, _ request: Request, for requester: Requester) async throws -> JSON {
        let shown = try Self.shown(request)
        guard let root = try await rooms.room(space), try await directory.isShown(root, to: requester) else {
            throw MatrixError.forbidden("There is no such space, or you may not look into it.")
        }
        let limit = min(max(request.limit, 1), Self.largestPage)
        let depth = min(request.maxDepth ?? Self.mostDepth, Self.mostDepth)
        var page: [JSON] = []
        var hasMore = false
        var count = 0
        var visited: Set<RoomID> = [space]
        var way: [(node: Node, depth: Int)] = [(.own(root), 0)]
        var asked = 0
        while let (node, level) = way.popLast() {
            if count >= shown {
                if page.count == limit {
                    hasMore = true
                    break
                }
                page.append(try await entry(of: node, suggestedOnly: request.suggestedOnly))
            }
            count += 1
            guard level < depth else { continue }
            var below: [(Node, Int)] = []
            for child in try await children(of: node, suggestedOnly: request.suggestedOnly) {
                guard visited.count < Self.mostRooms else { break }
                guard visited.insert(child.room).inserted,
                    let child = try await known(child, below: node, to: requester, &asked)
                else { continue }
                below.append((child, level + 1))
            }
            way += below.reversed()
        }
        var answer: JSONObject = ["rooms": .array(page)]
        if hasMore { answer["next_batch"] = .string(Self.token(shown + page.count, request)) }
        return .object(answer)
    }

    /// A child that is in the hierarchy: one that somebody knows and that the requester may know of.
    private func known(
        _ child: Child, below parent: Node, to requester: Requester, _ asked: inout Int
    ) async throws -> Node? {
        if let room = try await rooms.room(child.room), !room.record.extremities.isEmpty {
            return try await directory.isShown(room, to: requester) ? .own(room) : nil
        }
        guard asked < Self.mostAsked else { return nil }
        asked += 1
        var above: RoomID?
        if case .other(let entry) = parent { above = entry.roomID }
        guard let entry = await remote.entry(of: child.room, via: child.via, below: above),
            try await isShown(entry, to: requester)
        else { return nil }
        return .other(entry)
    }

    func isShown(_ entry: RemoteSpaces.Entry, to requester: Requester) async throws -> Bool {
        if ["public", "knock", "knock_restricted"].contains(entry.joinRule) || entry.isWorldReadable { return true }
        for roomID in entry.allowed + [entry.roomID] {
            guard let room = try await rooms.room(roomID) else { continue }
            let membership = try await database.membership(of: requester.nid, in: room.nid)?.membership
            if membership == .join || membership == .invite && roomID == entry.roomID { return true }
        }
        return false
    }

    private func entry(of node: Node, suggestedOnly: Bool) async throws -> JSON {
        switch node {
        case .own(let room): return try await entry(of: room, suggestedOnly: suggestedOnly)
        case .other(let entry):
            guard suggestedOnly else { return entry.json }
            var json = entry.json
            json["children_state"] = .array(entry.children.filter(\.isSuggested).map(\.json))
            return json
        }
    }

    private func children(of node: Node, suggestedOnly: Bool) async throws -> [Child] {
        switch node {
        case .own(let room): try await children(of: room, suggestedOnly: suggestedOnly)
        case .other(let entry): entry.children.filter { !suggestedOnly || $0.isSuggested }
        }
    }

    // MARK: - Tokens

    private static func token(_ shown: Int, _ request: Request) -> String {
        "h\(shown)_\(request.maxDepth.map(String.init) ?? "")_\(request.suggestedOnly ? 1 : 0)"
    }

    /// How many rooms were shown before the page.
    private static func shown(_ request: Request) throws -> Int {
        guard let from = request.from else { return 0 }
        let parts = from.dropFirst().split(separator: "_", omittingEmptySubsequences: false)
        guard from.utf8.first == UInt8(ascii: "h"), parts.count == 3, let shown = Int(parts[0]), shown > 0 else {
            throw MatrixError.invalidParam("“from” is not a token that this server gave out.")
        }
        guard token(shown, request).hasSameBytes(as: from) else {
            throw MatrixError.invalidParam(
                "“max_depth” and “suggested_only” must stay as they were for the first page.")
        }
        return shown
    }

    // MARK: - Rooms

    /// What is told of a room: its summary, and what it says of its children.
    func entry(of room: Room, suggestedOnly: Bool) async throws -> JSON {
        var json = try await directory.summary(of: room)
        json["children_state"] = .array(try await children(of: room, suggestedOnly: suggestedOnly).map(\.json))
        return .object(json)
    }

    /// The children that a space names, in their order; none for rooms that are no spaces.
    func children(of room: Room, suggestedOnly: Bool) async throws -> [Child] {
        let key = ChildrenKey(room: room.nid, state: room.record.state)
        var found = children.withLock { $0[key] }
        if found == nil {
            let read = try await readChildren(of: room)
            children.withLock { $0.insert(read, for: key, size: 1 + read.count) }
            found = read
        }
        return (found ?? []).filter { !suggestedOnly || $0.isSuggested }
    }

    private func readChildren(of room: Room) async throws -> [Child] {
        guard try await directory.contents(room, [.create])[.create]?["type"]?.string == "m.space" else { return [] }
        let events = try await database.read { reader -> [StoredEvent] in
            let keys = try await self.database.numbers(ofStateKeysOfType: "m.space.child", reader)
            let tree = StateTree(rows: self.database.stateRows, room: room.nid)
            let entries = try await tree.entries(in: room.record.state, reader)
            return try await self.database.events(entries.filter { keys.contains($0.key) }.map(\.event), reader)
        }
        var children: [(order: SpaceOrder, child: Child)] = []
        for stored in events {
            let event = try rooms.context.parse(stored, room.version)
            guard let key = event.stateKey, let child = RoomID(key), stored.redactedBy == nil else { continue }
            let names = event.content["via"].map { $0.isArray ? $0.elements.compactMap(\.string) : [] } ?? []
            let via = names.prefix(20).compactMap { ServerName($0) }
            // Without a server to ask, the room is not a child any more.
            if via.isEmpty { continue }
            children.append(
                (
                    SpaceOrder(
                        order: event.content["order"]?.string, timestamp: event.originServerTS, room: child.string),
                    Child(
                        room: child, via: via, isSuggested: event.content["suggested"]?.bool == true,
                        json: [
                            "type": "m.space.child", "state_key": .string(key), "sender": .string(event.sender.string),
                            "content": event.content.json, "origin_server_ts": .integer(event.originServerTS),
                        ])
                ))
        }
        children.sort { $0.order < $1.order }
        return children.prefix(Self.mostChildren).map(\.child)
    }
}

/// Where a child stands among the children of a space (Client-Server API, "Ordering of children within a space").
struct SpaceOrder: Comparable {
    /// nil for children without an order that is valid: up to fifty printable ASCII characters.
    let order: [UInt8]?
    let timestamp: Int64
    let room: [UInt8]

    init(order: String?, timestamp: Int64, room: String) {
        self.order = order.map { Array($0.utf8) }.flatMap { bytes in
            bytes.count <= 50 && bytes.allSatisfy { (0x20...0x7E).contains($0) } ? bytes : nil
        }
        self.timestamp = timestamp
        self.room = Array(room.utf8)
    }

    static func < (left: Self, right: Self) -> Bool {
        switch (left.order, right.order) {
        case (_?, nil): return true
        case (nil, _?): return false
        case (let one?, let other?) where one != other: return one.lexicographicallyPrecedes(other)
        default: break
        }
        if left.timestamp != right.timestamp { return left.timestamp < right.timestamp }
        return left.room.lexicographicallyPrecedes(right.room)
    }
}
