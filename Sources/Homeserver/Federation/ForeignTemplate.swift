import MatrixCore

/// The event that another server proposes this one to sign (Server-Server API, "Joining Rooms", "Knocking upon a room", "Leaving
/// Rooms (Rejecting Invites)"). Only its place in the room's graph is taken from there: a server that could choose the rest would have
/// events signed in the names of users here (A07).
struct ForeignTemplate {
    let version: RoomVersion
    private let event: JSONView
    let membership: String
    let user: UserID
    let roomID: RoomID

    /// - Throws: ``FederationFailure`` if the answer proposes something else than was asked for.
    init(_ answer: JSONView, _ membership: String, of user: UserID, in roomID: RoomID, by server: ServerName) throws {
        func refuse(_ reason: String) -> FederationFailure { FederationFailure(server: server, reason: reason) }
        let identifier = answer["room_version"]?.string ?? "1"
        guard let version = RoomVersion.named(identifier) else {
            throw refuse("the room has version \(identifier.shortened(to: 32)), which this server doesn't know")
        }
        guard let event = answer["event"], event.isObject, event["type"]?.isString("m.room.member") == true,
            event["sender"]?.isString(user.string) == true, event["state_key"]?.isString(user.string) == true,
            event["room_id"]?.isString(roomID.string) == true,
            event["content"]?["membership"]?.isString(membership) == true
        else { throw refuse("it proposes another event than it was asked for") }
        self.version = version
        self.event = event
        self.membership = membership
        self.user = user
        self.roomID = roomID
    }

    /// The event, with what this server says of its user.
    func template(content: JSON, at time: Int64, eventID: EventID) throws -> EventTemplate {
        var content = content
        // By whose right the user enters is the room's business.
        if membership == "join", let authoriser = event["content"]?["join_authorised_via_users_server"]?.string {
            content["join_authorised_via_users_server"] = .string(authoriser)
        }
        var hashes: [EventID: [UInt8]] = [:]
        func references(_ field: String) throws -> [EventID] {
            try event[field]?.elements.prefix(20).map { entry in
                var id = entry
                if version.rules.eventIDs == .assigned {
                    let pair = Array(entry.elements.prefix(2))
                    guard pair.count == 2 else {
                        throw MatrixError.badJSON("“\(field)” of the proposed event is wrong.")
                    }
                    id = pair[0]
                    if let name = id.string.flatMap({ EventID($0) }),
                        let hash = pair[1]["sha256"]?.string.flatMap({ Base64.decode($0) })
                    {
                        hashes[name] = hash
                    }
                }
                guard let eventID = id.string.flatMap({ EventID($0) }) else {
                    throw MatrixError.badJSON("“\(field)” of the proposed event is wrong.")
                }
                return eventID
            } ?? []
        }
        let previous = try references("prev_events")
        let auth = try references("auth_events")
        let depth = event["depth"]?.integer ?? 1
        var template = EventTemplate(
            version: version, roomID: roomID, sender: user, type: "m.room.member", stateKey: user.string,
            content: content, prevEvents: previous, authEvents: Array(auth.prefix(10)),
            depth: min(max(depth, 1), 1 << 53 - 1), originServerTS: time,
            eventID: version.rules.eventIDs == .assigned ? eventID : nil)
        template.referenceHashes = hashes
        return template
    }
}
