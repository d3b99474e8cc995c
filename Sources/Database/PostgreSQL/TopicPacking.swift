/// Topics as they stand in the table of changes: for each the number of its kind and its numbers, as varints.
extension Topic {
    static func pack(_ topics: [Topic]) -> [UInt8] {
        var bytes: [UInt8] = []
        func add(_ numbers: Int64...) {
            for number in numbers { Varint.append(UInt64(bitPattern: number), to: &bytes) }
        }
        // Writes that share a transaction often concern the same room.
        for topic in Set(topics) {
            switch topic {
            case .room(let room): add(0, room.rawValue)
            case .roomOf(let room, let user): add(1, room.rawValue, user.rawValue)
            case .user(let user): add(2, user.rawValue)
            case .memberships(let user): add(3, user.rawValue)
            case .event(let event): add(4, event.rawValue)
            case .everything: add(5)
            case .pushRules(let user): add(6, user.rawValue)
            case .presence(let user): add(7, user.rawValue)
            case .deviceList(let user): add(8, user.rawValue)
            case .deviceListIn(let room): add(9, room.rawValue)
            case .destination(let server): add(10, server.rawValue)
            case .profile(let user): add(11, user.rawValue)
            case .receipts(let room): add(12, room.rawValue)
            case .typing(let room, let user, let time): add(13, room.rawValue, user.rawValue, time)
            }
        }
        return bytes
    }

    /// What another version of the server wrote, and this one doesn't know, may be anything.
    static func unpack(_ bytes: [UInt8]) -> [Topic] {
        var topics: [Topic] = []
        var index = 0
        func number() -> Int64? { Varint.read(bytes, &index).map { Int64(bitPattern: $0) } }
        while index < bytes.count {
            switch number() {
            case 0: if let room = number() { topics.append(.room(RoomNID(room))) }
            case 1:
                if let room = number(), let user = number() { topics.append(.roomOf(RoomNID(room), UserNID(user))) }
            case 2: if let user = number() { topics.append(.user(UserNID(user))) }
            case 3: if let user = number() { topics.append(.memberships(UserNID(user))) }
            case 4: if let event = number() { topics.append(.event(EventNID(event))) }
            case 5: topics.append(.everything)
            case 6: if let user = number() { topics.append(.pushRules(UserNID(user))) }
            case 7: if let user = number() { topics.append(.presence(UserNID(user))) }
            case 8: if let user = number() { topics.append(.deviceList(UserNID(user))) }
            case 9: if let room = number() { topics.append(.deviceListIn(RoomNID(room))) }
            case 10: if let server = number() { topics.append(.destination(ServerNID(server))) }
            case 11: if let user = number() { topics.append(.profile(UserNID(user))) }
            case 12: if let room = number() { topics.append(.receipts(RoomNID(room))) }
            case 13:
                if let room = number(), let user = number(), let time = number() {
                    topics.append(.typing(RoomNID(room), UserNID(user), time))
                }
            default: return topics + [.everything]
            }
        }
        return topics
    }
}
