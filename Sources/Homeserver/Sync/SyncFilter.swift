import MatrixCore

/// What a client wants of a sync (Client-Server API, "Filtering").
public struct SyncFilter: Sendable {
    public var timeline = RoomEventFilter()
    public var state = RoomEventFilter()
    public var ephemeral = RoomEventFilter()
    public var roomAccountData = RoomEventFilter()
    public var accountData = EventFilter()
    public var includesLeft = false
    public var presence = EventFilter()
    /// The parts of events that are wanted; nil: all.
    var fields: EventFields?
    /// The fields of others' profiles that are wanted (MSC4429).
    var profileFields: Set<ByteString> = []
    /// Whether events are wanted as servers exchange them.
    var wantsFederationFormat = false
    /// `rooms` and `not_rooms` of all that has to do with rooms.
    var rooms = RoomEventFilter()

    /// Events of a room's timeline when the client doesn't say, and at most.
    static let defaultLimit = 10
    static let largestLimit = 1_000

    public init() {}

    /// - Throws: `M_BAD_JSON` where a member has the wrong type.
    public init(_ json: JSONView) throws {
        let room = try json.optionalObject("room")
        rooms = try RoomEventFilter(room)
        includesLeft = try room?.optionalBool("include_leave") ?? false
        timeline = try RoomEventFilter(try room?.optionalObject("timeline"))
        state = try RoomEventFilter(try room?.optionalObject("state"))
        ephemeral = try RoomEventFilter(try room?.optionalObject("ephemeral"))
        roomAccountData = try RoomEventFilter(try room?.optionalObject("account_data"))
        accountData = try EventFilter(try json.optionalObject("account_data"))
        presence = try EventFilter(try json.optionalObject("presence"))
        fields = try json.optionalStrings("event_fields").map { EventFields($0) }
        let profiles = try json.optionalObject("org.matrix.msc4429.profile_fields")
        profileFields = Set(try profiles?.optionalStrings("ids")?.map { ByteString($0) } ?? [])
        let format = try json.optionalString("event_format") ?? "client"
        guard ["client", "federation"].contains(format) else {
            throw MatrixError.badJSON("“event_format” must be client or federation.")
        }
        wantsFederationFormat = format == "federation"
    }

    var timelineLimit: Int { min(timeline.events.limit ?? Self.defaultLimit, Self.largestLimit) }
    var includesRedundantMembers: Bool { state.includesRedundantMembers || timeline.includesRedundantMembers }
    var lazyLoadsMembers: Bool { state.lazyLoadsMembers || timeline.lazyLoadsMembers }
}
