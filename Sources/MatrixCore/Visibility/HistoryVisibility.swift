/// Who may see the events of a room (Client-Server API, Room History Visibility).
public enum HistoryVisibility: String, Sendable, Hashable {
    case worldReadable = "world_readable"
    case shared
    case invited
    case joined

    /// The visibility that an `m.room.history_visibility` event sets; `shared` if there is none or its value is unknown.
    public init(event: Event?) { self.init(content: event?.content) }

    init(content: JSONView?) {
        let value = content?["history_visibility"]
        let known: [HistoryVisibility] = [.worldReadable, .shared, .invited, .joined]
        self = known.first { value?.isString($0.rawValue) == true } ?? .shared
    }

    /// Whether `user` may see `event` (Client-Server API, Room History Visibility, Server behaviour).
    ///
    /// - Parameters:
    ///   - event: The event.
    ///   - visibility: The visibility in the state before the event.
    ///   - membership: The user's membership in the state before the event.
    ///   - joinedLater: Whether the user joined the room at any point after the event, or is joined now.
    public static func allows(
        _ user: UserID, toSee event: Event, visibility: HistoryVisibility, membership: Membership, joinedLater: Bool
    ) -> Bool {
        if allows(visibility: visibility, membership: membership, joinedLater: joinedLater) { return true }
        guard let stateKey = event.stateKey else { return false }
        // A change of visibility is judged by both sides of it.
        if event.type.hasSameBytes(as: "m.room.history_visibility"), stateKey.isEmpty {
            return allows(
                visibility: HistoryVisibility(event: event), membership: membership, joinedLater: joinedLater)
        }
        // So is a change of the user's own membership.
        if event.type.hasSameBytes(as: "m.room.member"), stateKey.hasSameBytes(as: user.string) {
            let after = Membership(event.content["membership"]) ?? .leave
            return allows(visibility: visibility, membership: after, joinedLater: joinedLater)
        }
        return false
    }

    /// The rules in the order of the text.
    private static func allows(visibility: HistoryVisibility, membership: Membership, joinedLater: Bool) -> Bool {
        // 1.
        if visibility == .worldReadable { return true }
        // 2.
        if membership == .join { return true }
        // 3.
        if visibility == .shared, joinedLater { return true }
        // 4.
        if membership == .invite, visibility == .invited { return true }
        // 5.
        return false
    }
}
