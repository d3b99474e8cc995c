import MatrixCore
import RoostTestSupport
import Testing

@testable import Homeserver

/// What a client has been told of what people show of themselves.
struct KnownProfiles {
    var fields: [String: [String: JSON]] = [:]

    /// Takes what `/sync` tells (MSC4429).
    mutating func take(_ users: JSONView?) {
        for (user, entry) in users.map({ $0.members.map { ($0.key, $0.value) } }) ?? [] {
            guard let updates = entry["profile_updates"], !updates.isNull else {
                fields[user] = nil
                continue
            }
            for (field, value) in updates.members {
                fields[user, default: [:]][field] = value.isNull ? JSON?.none : value.json
            }
        }
    }

    /// Takes what sliding sync tells (MSC4262).
    mutating func takeSliding(_ users: JSONView?) {
        for (user, entry) in users.map({ $0.members.map { ($0.key, $0.value) } }) ?? [] {
            if entry.isNull {
                fields[user] = nil
                continue
            }
            for (field, value) in entry["updated"].map({ $0.members.map { ($0.key, $0.value) } }) ?? [] {
                fields[user, default: [:]][field] = value.json
            }
            for field in entry["removed"]?.elements.compactMap(\.string) ?? [] { fields[user]?[field] = nil }
        }
    }

    /// Nothing of whom no room is shared with, and nothing outdated of the others.
    ///
    /// - Parameter isWhole: whether everything of the others must be known.
    func check(
        _ profiles: [String: [String: JSON]], _ sharing: Set<String>, isWhole: Bool, _ place: Comment
    ) {
        for (user, profile) in profiles {
            let known = fields[user]
            guard sharing.contains(user) else {
                #expect(known == nil, "\(place) of \(user), with whom no room is shared")
                continue
            }
            if isWhole {
                #expect(known ?? [:] == profile, "\(place) of \(user)")
            } else {
                for (field, value) in known ?? [:] { #expect(profile[field] == value, "\(place) of \(user): \(field)") }
            }
        }
    }
}

extension SyncWorld {
    /// A user, and with whom the user shares a room.
    func sharing(_ index: Int) async throws -> Set<String> {
        var found: Set<String> = [users[index].userID.string]
        for room in rooms {
            let members = Self.members(Self.state(after: try await log(room)))
            if members.contains(users[index].userID.string) { found.formUnion(members) }
        }
        return found
    }

    static func members(_ state: [StateKey: Event]) -> Set<String> {
        Set(
            state.filter { $0.key.type == "m.room.member" && $0.value.content["membership"]?.isString("join") == true }
                .map(\.key.key))
    }

    /// The events of a room that are sticky, and haven't been redacted.
    static func sticky(_ log: [Entry]) -> Set<String> {
        let redacted = Set(log.compactMap { $0.event.redacts?.string })
        return Set(log.filter { $0.event.type == "org.example.sticky" }.map(\.event.eventID.string)).subtracting(
            redacted)
    }
}
