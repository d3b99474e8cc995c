import Database

/// Whose presence changed lately, by the rooms in which others see it: a sync looks at its own rooms' changes alone, however many
/// people come and go elsewhere.
struct ToldPresence {
    private var byRoom: [RoomNID: [(serial: Int64, user: UserNID)]] = [:]
    private var count = 0
    /// Changes up to this number are not listed any more.
    private var forgotten: Int64 = 0
    /// The number of the last change.
    private(set) var last: Int64 = 0

    private static let most = 200_000

    /// - Parameter serial: greater than all before.
    mutating func add(_ user: UserNID, under serial: Int64, in rooms: Set<RoomNID>) {
        if count + rooms.count > Self.most {
            byRoom = [:]
            count = 0
            forgotten = last
        }
        for room in rooms { byRoom[room, default: []].append((serial, user)) }
        count += rooms.count
        last = serial
    }

    /// Whose presence changed after a number in some rooms; nil if that is not known any more.
    func users(since serial: Int64, in rooms: [RoomNID]) -> Set<UserNID>? {
        guard serial >= forgotten else { return nil }
        var users: Set<UserNID> = []
        for room in rooms {
            for change in byRoom[room, default: []].reversed() {
                if change.serial <= serial { break }
                users.insert(change.user)
            }
        }
        return users
    }
}
