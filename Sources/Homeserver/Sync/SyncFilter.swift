import MatrixCore

/// What a client wants of a sync (Client-Server API, "Filtering"). An object, because every sync that waits holds one.
public final class SyncFilter: Sendable {
    let timeline: RoomEventFilter
    let state: RoomEventFilter
    let ephemeral: RoomEventFilter
    let roomAccountData: RoomEventFilter
    let accountData: EventFilter
    let includesLeft: Bool
    let presence: EventFilter
    /// The parts of events that are wanted; nil: all.
    let fields: EventFields?
    /// The fields of others' profiles that are wanted (MSC4429).
    let profileFields: Set<ByteString>
    /// Whether events are wanted as servers exchange them.
    let wantsFederationFormat: Bool
    /// `rooms` and `not_rooms` of all that has to do with rooms.
    let rooms: RoomEventFilter

    /// Of those who don't name one.
    public static let none: SyncFilter = {
        do { return try SyncFilter(JSONDocument(parsing: Array("{}".utf8)).root) } catch {
            preconditionFailure("\(error)")
        }
    }()

    /// Events of a room's timeline when the client doesn't say, and at most.
    static let defaultLimit = 10
    static let largestLimit = 1_000

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
