import Database
import MatrixCore

/// What goes with the members of a room that is replaced by another one (Client-Server API, "Room Upgrades").
struct RoomSuccession: Sendable {
    let rooms: RoomRegistry
    let pushRules: PushRuleService
    private var database: Database { rooms.database }

    /// A user has joined a room: if it replaces one that the user was in, the user's settings go along.
    func joined(_ room: Room, by requester: Requester) async throws {
        let predecessor: RoomID? = try await database.read { reader in
            let tree = StateTree(rows: database.stateRows, room: room.nid)
            guard let key = try await database.existingNumber(ofStateKey: .create),
                let nid = try await tree.event(for: key, in: room.record.state, reader),
                let stored = try await database.events([nid], reader).first
            else { return nil }
            let content = try rooms.context.parse(stored, room.version).content
            return content["predecessor"]?["room_id"]?.string.flatMap { RoomID($0) }
        }
        guard let predecessor, let old = try await rooms.room(predecessor) else { return }
        let membership = try await database.membership(of: requester.nid, in: old.nid)
        if membership?.membership == .join { try await carryOver(for: requester.nid, from: old, to: room) }
    }

    /// Carries a member's own settings over to the room that replaces another: tags, whether it is direct, push rules.
    func carryOver(for user: UserNID, from old: Room, to new: Room) async throws {
        var write = Write()
        if let tags = try await database.accountData(of: user, room: old.nid, type: "m.tag"),
            try await database.accountData(of: user, room: new.nid, type: "m.tag") == nil
        {
            write.putAccountData(of: user, room: new.nid, type: "m.tag", content: tags)
        }
        if let direct = try await database.accountData(of: user, room: nil, type: "m.direct"),
            let people = try JSONDocument(parsing: direct, limits: .own).root.json.objectValue
        {
            var moved = people
            for (name, list) in people {
                guard let ids = list.arrayValue, ids.contains(.string(old.roomID.string)),
                    !ids.contains(.string(new.roomID.string))
                else { continue }
                moved[name] = .array(ids + [.string(new.roomID.string)])
            }
            if moved != people {
                write.putAccountData(
                    of: user, room: nil, type: "m.direct", content: JSON.object(moved).encoded())
            }
        }
        if !write.isEmpty { try await database.write(write) }
        let name = try await database.user(user)
        guard let name else { return }
        let requester = Requester(nid: user, userID: name, deviceID: "")
        for kind in [PushRule.Kind.room, .override] {
            let rules = try await pushRules.rules(of: requester)
            for rule in rules[kind] where !rule.isDefault && rule.id == old.roomID.string {
                var json = rule.json(kind: kind).objectValue ?? [:]
                json["rule_id"] = .string(new.roomID.string)
                json["conditions"] = json["conditions"].map { conditions in
                    .array(
                        (conditions.arrayValue ?? []).map { condition in
                            guard condition["key"] == "room_id", var changed = condition.objectValue else {
                                return condition
                            }
                            changed["pattern"] = .string(new.roomID.string)
                            return .object(changed)
                        })
                }
                if let moved = PushRule(.object(json), kind: kind) {
                    try await pushRules.put(moved, kind: kind, before: nil, after: nil, of: requester)
                }
            }
        }
    }
}
