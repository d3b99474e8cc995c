import MatrixCore

/// What a client wants of a sync (Client-Server API, "Filtering").
public struct SyncFilter: Sendable {
    public var timeline = RoomEventFilter()
    public var state = RoomEventFilter()
    public var ephemeral = RoomEventFilter()
    public var roomAccountData = RoomEventFilter()
    public var accountData = EventFilter()
    public var includesLeft = false
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
        _ = try EventFilter(try json.optionalObject("presence"))
        _ = try json.optionalStrings("event_fields")
        if let format = try json.optionalString("event_format"), !["client", "federation"].contains(format) {
            throw MatrixError.badJSON("“event_format” must be client or federation.")
        }
    }

    var timelineLimit: Int { min(timeline.events.limit ?? Self.defaultLimit, Self.largestLimit) }
    var lazyLoadsMembers: Bool { state.lazyLoadsMembers || timeline.lazyLoadsMembers }
}
