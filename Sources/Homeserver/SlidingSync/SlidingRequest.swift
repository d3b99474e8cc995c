import MatrixCore

/// What a client asks of sliding sync (MSC4186, "Request Body"). Fields are read under the names of the proposal and under those
/// that clients send today, which are those of its earlier form.
public struct SlidingRequest: Sendable {
    public var connID: String
    /// nil: a connection begins.
    public var pos: String?
    /// Milliseconds to wait for something new.
    public var timeout: Int64
    public var presence: PresenceService.State
    public var transactionID: String?
    var lists: [List]
    var subscriptions: [(room: RoomID, config: RoomConfig)]
    var extensions: Extensions

    struct RoomConfig: Sendable, Hashable {
        var timelineLimit: Int
        var required: RequiredState

        /// MSC4186, "Combining room configs".
        static func combined(_ configs: [RoomConfig]) -> RoomConfig {
            RoomConfig(
                timelineLimit: configs.map(\.timelineLimit).max() ?? 0,
                required: RequiredState(rules: configs.flatMap(\.required.rules)))
        }
    }

    struct List: Sendable {
        let name: String
        /// Places in the filtered list, both ends included; nil: all.
        let ranges: [ClosedRange<Int>]?
        let config: RoomConfig
        let filter: Filter
    }

    /// MSC4186, `SlidingRoomFilter`.
    struct Filter: Sendable {
        var isDirect: Bool?
        var isEncrypted: Bool?
        var isInvited: Bool?
        var spaces: [String]?
        /// nil among them stands for rooms without a type.
        var types: [String?]?
        var notTypes: [String?]
        var tags: [String]?
        var notTags: [String]
    }

    struct Extensions: Sendable {
        var toDevice: ToDevice?
        var isEncryptionEnabled = false
        var accountData: Scope?
        var receipts: Scope?
        var typing: Scope?
        var areStickyEventsEnabled = false
        var threadSubscriptions: ThreadSubscriptions?
        var profiles: Profiles?
    }

    /// MSC4262.
    struct Profiles: Sendable {
        /// The names of fields; nil: all.
        var fields: Set<ByteString>?
        var scope: Scope

        /// By which a token tells whether the same fields are asked for; 0: all of them.
        var digest: Int64 {
            guard let fields else { return 0 }
            let names = fields.map(\.string).sorted().joined(separator: "\0")
            return Hashing.sha256(Array(names.utf8)).prefix(4).reduce(1) { $0 << 8 | Int64($1) }
        }
    }

    /// MSC4308.
    struct ThreadSubscriptions: Sendable {
        var limit: Int
        static let mostAtOnce = 100
    }

    struct ToDevice: Sendable {
        var since: String?
    }

    /// To which rooms an extension is confined.
    struct Scope: Sendable {
        /// Names of lists; nil: all.
        var lists: Set<String>?
        /// Rooms that are subscribed to; nil: all.
        var rooms: Set<ByteString>?
    }

    /// Lists and subscriptions of a request (MSC4186, "Request Body").
    private static let most = 100
    /// Events of a timeline that are told at most.
    static let largestLimit = 100
    private static let mostRanges = 20

    /// - Throws: `M_BAD_JSON` and `M_INVALID_PARAM` for what isn't a request.
    public init(_ body: JSONView, pos: String?, timeout: Int64?, presence: String?, for user: UserID) throws {
        connID = try body.optionalString("conn_id") ?? ""
        guard connID.utf8.count <= 255 else { throw MatrixError.invalidParam("“conn_id” has at most 255 bytes.") }
        self.pos = try pos ?? body.optionalString("pos")
        self.timeout = try timeout ?? body.optionalInteger("timeout") ?? 0
        guard self.timeout >= 0 else { throw MatrixError.invalidParam("“timeout” is negative.") }
        guard let state = PresenceService.State(name: try presence ?? body.optionalString("set_presence") ?? "online")
        else { throw MatrixError.invalidParam("“set_presence” must be offline, online or unavailable.") }
        self.presence = state
        transactionID = try body.optionalString("txn_id")
        lists = try body.optionalObject("lists")?.members.map { try List($0.key, $0.value, user) } ?? []
        guard lists.count <= Self.most else {
            throw MatrixError.invalidParam("A request has at most \(Self.most) lists.")
        }
        subscriptions =
            try body.optionalObject("room_subscriptions")?.members.map { name, config in
                guard let room = RoomID(name) else { throw MatrixError.invalidParam("“\(name)” is not a room ID.") }
                return (room, try RoomConfig(config, user))
            } ?? []
        guard subscriptions.count <= Self.most else {
            throw MatrixError.invalidParam("A request has at most \(Self.most) room subscriptions.")
        }
        extensions = try Extensions(try body.optionalObject("extensions"))
    }
}

extension SlidingRequest.RoomConfig {
    init(_ json: JSONView, _ user: UserID) throws {
        guard json.isObject else { throw MatrixError.badJSON("A list or subscription must be an object.") }
        let limit = try json.optionalInteger("timeline_limit") ?? 0
        guard limit >= 0 else { throw MatrixError.invalidParam("“timeline_limit” is negative.") }
        timelineLimit = min(Int(limit), SlidingRequest.largestLimit)
        required = try RequiredState(json["required_state"], for: user)
    }
}

extension SlidingRequest.List {
    init(_ name: String, _ json: JSONView, _ user: UserID) throws {
        guard (1...255).contains(name.utf8.count) else {
            throw MatrixError.invalidParam("A list's name has 1 to 255 bytes.")
        }
        self.name = name
        config = try .init(json, user)
        if let range = json["range"], !range.isNull {
            ranges = [try Self.range(range)]
        } else if let all = try json.optionalArray("ranges") {
            guard all.count <= SlidingRequest.mostRanges else {
                throw MatrixError.invalidParam("A list has at most \(SlidingRequest.mostRanges) ranges.")
            }
            ranges = try all.map(Self.range)
        } else {
            ranges = nil
        }
        filter = try .init(try json.optionalObject("filters"))
    }

    private static func range(_ json: JSONView) throws -> ClosedRange<Int> {
        let ends = json.elements.compactMap(\.integer)
        guard json.isArray, json.count == 2, ends.count == 2, ends[0] >= 0, ends[0] <= ends[1] else {
            throw MatrixError.invalidParam("A range is two whole numbers, the first not above the second.")
        }
        return Int(ends[0])...Int(ends[1])
    }
}

extension SlidingRequest.Filter {
    init(_ json: JSONView?) throws {
        isDirect = try json?.optionalBool("is_dm")
        isEncrypted = try json?.optionalBool("is_encrypted")
        isInvited = try json?.optionalBool("is_invited") ?? json?.optionalBool("is_invite")
        spaces = try json?.optionalStrings("spaces")
        types = try Self.types(json, "room_types")
        notTypes = try Self.types(json, "not_room_types") ?? []
        tags = try json?.optionalStrings("tags")
        notTags = try json?.optionalStrings("not_tags") ?? []
    }

    private static func types(_ json: JSONView?, _ name: String) throws -> [String?]? {
        try json?.optionalArray(name)?.map { element in
            guard element.isNull || element.string != nil else {
                throw MatrixError.badJSON("“\(name)” must hold strings and null.")
            }
            return element.string
        }
    }
}

extension SlidingRequest.Extensions {
    init(_ json: JSONView?) throws {
        func enabled(_ name: String) throws -> JSONView? {
            guard let one = try json?.optionalObject(name), try one.optionalBool("enabled") == true else { return nil }
            return one
        }
        toDevice = try enabled("to_device").map { .init(since: try $0.optionalString("since")) }
        isEncryptionEnabled = try enabled("e2ee") != nil
        accountData = try enabled("account_data").map { try .init($0) }
        receipts = try enabled("receipts").map { try .init($0) }
        typing = try enabled("typing").map { try .init($0) }
        areStickyEventsEnabled = try enabled("org.matrix.msc4354.sticky_events") != nil
        profiles = try enabled("org.matrix.msc4262.profiles").map { json in
            .init(
                fields: try json.optionalStrings("fields").map { Set($0.map { ByteString($0) }) },
                scope: try .init(json))
        }
        threadSubscriptions = try enabled("io.element.msc4308.thread_subscriptions").map { json in
            let most = SlidingRequest.ThreadSubscriptions.mostAtOnce
            let limit = try json.optionalInteger("limit") ?? Int64(most)
            guard limit > 0 else { throw MatrixError.invalidParam("“limit” must be above 0.") }
            return .init(limit: Int(min(limit, Int64(most))))
        }
    }
}

extension SlidingRequest.Scope {
    init(_ json: JSONView) throws {
        lists = try json.optionalStrings("lists").map { $0.contains("*") ? nil : Set($0) } ?? nil
        rooms = try json.optionalStrings("rooms").map { $0.contains("*") ? nil : Set($0.map { ByteString($0) }) } ?? nil
    }

    /// Whether a room belongs to it that some lists show, or that is subscribed to.
    func admits(_ room: RoomID, in names: [String], isSubscribed: Bool) -> Bool {
        if isSubscribed, rooms?.contains(ByteString(room.string)) ?? true { return true }
        return lists.map { lists in names.contains { lists.contains($0) } } ?? !names.isEmpty
    }

    /// Whether it is not confined at all.
    var isWhole: Bool { lists == nil && rooms == nil }
}
