import Database
import MatrixCore

/// What people show of themselves (Client-Server API, "Profiles").
public final class ProfileService: Sendable {
    private let rooms: RoomRegistry
    private var database: Database { rooms.database }

    private let client: FederationClient

    init(rooms: RoomRegistry, client: FederationClient) {
        self.rooms = rooms
        self.client = client
    }

    /// A field's name has up to 255 bytes, a whole profile up to 64 KiB.
    private static let longestName = 255
    private static let largestProfile = 65_536

    /// All fields that a user shows, as an object.
    ///
    /// - Throws: `M_NOT_FOUND` if there is no such user.
    public func profile(of user: UserID) async throws -> JSONObject {
        if user.server != rooms.context.serverName { return try await profileElsewhere(of: user) }
        guard let account = try await database.account(of: user), !account.isDeactivated else {
            throw MatrixError.notFound("There is no user \(user).")
        }
        var profile = JSONObject()
        if let name = account.displayName { profile["displayname"] = .string(name) }
        if let avatar = account.avatarURL { profile["avatar_url"] = .string(avatar) }
        for (field, value) in try await database.profileFields(of: account.nid) {
            profile[field] = try JSONDocument(parsing: value, limits: .own).root.json
        }
        return profile
    }

    /// What another server says of its user (Server-Server API, `GET /query/profile`).
    private func profileElsewhere(of user: UserID) async throws -> JSONObject {
        let path = FederationClient.path("/_matrix/federation/v1/query/profile", query: [("user_id", user.string)])
        do {
            let answer = try await client.get(
                path, from: user.server, timeout: 10_000, mostBytes: 2 * Self.largestProfile)
            var profile = JSONObject()
            for (field, value) in answer.members.prefix(100) {
                // Names and pictures that are none can't be shown (A17).
                if ["displayname", "avatar_url"].contains(field), value.string == nil { continue }
                profile[field] = value.json
            }
            return profile
        } catch let error as FederationFailure {
            throw error.clientError
        }
    }

    /// Sets a field, or removes it (nil). A name or picture is then shown in all rooms that the user is in.
    public func set(_ field: String, to value: JSON?, for requester: Requester) async throws {
        guard !field.isEmpty, field.utf8.count <= Self.longestName else {
            throw MatrixError(.keyTooLarge, "A field's name has 1 to \(Self.longestName) bytes.")
        }
        guard let account = try await database.account(requester.nid) else { throw MatrixError.unknownToken() }
        var write = Write()
        switch field {
        case "displayname":
            let name = try Self.text(value, field)
            if name == account.displayName { return }
            write.setDisplayName(name, of: requester.nid)
            write.putUserWords(
                UserDirectoryService.words(requester.userID, displayName: name), of: requester.nid)
        case "avatar_url":
            let avatar = try Self.text(value, field)
            if avatar == account.avatarURL { return }
            write.setAvatarURL(avatar, of: requester.nid)
        default: return try await setOther(field, to: value, for: requester)
        }
        try await database.announceProfile(field, of: requester.nid, in: &write)
        try await database.write(write)
        try await showInRooms(requester)
    }

    private static func text(_ value: JSON?, _ field: String) throws -> String? {
        guard let value, !value.isNull else { return nil }
        guard let text = value.stringValue else { throw MatrixError.badJSON("“\(field)” must be a string.") }
        guard text.utf8.count <= 1_000 else { throw MatrixError(.profileTooLarge, "“\(field)” is too long.") }
        return text.isEmpty ? nil : text
    }

    private func setOther(_ field: String, to value: JSON?, for requester: Requester) async throws {
        var write = Write()
        if let value {
            guard let encoded = try? value.canonical() else {
                throw MatrixError.badJSON("“\(field)” is not canonical JSON.")
            }
            let others = try await database.profileFields(of: requester.nid).filter { $0.field != field }
            let size = others.reduce(field.utf8.count + encoded.count) { $0 + $1.field.utf8.count + $1.value.count }
            guard size <= Self.largestProfile else {
                throw MatrixError(.profileTooLarge, "A profile may have \(Self.largestProfile) bytes in all.")
            }
            write.putProfileField(field, value: encoded, of: requester.nid)
        } else {
            write.deleteProfileField(field, of: requester.nid)
        }
        try await database.announceProfile(field, of: requester.nid, in: &write)
        try await database.write(write)
    }

    /// Renews the user's member event in every room (Client-Server API, "Events on Change of Profile Information").
    private func showInRooms(_ requester: Requester) async throws {
        let joined = try await database.read { try await self.database.memberships(of: requester.nid, $0) }
        for membership in joined where membership.membership == .join {
            let room = try await rooms.room(membership.room)
            do {
                try await rooms.perform(in: room) { draft in
                    guard let current = try await draft.state(.member(requester.userID)),
                        Membership(current.content["membership"]) == .join
                    else { return }
                    // Read here, in the room's own order: name and picture may change at the same time.
                    guard let account = try await self.database.account(requester.nid) else { return }
                    var content = current.content.json
                    content["displayname"] = account.displayName.map { .string($0) }
                    content["avatar_url"] = account.avatarURL.map { .string($0) }
                    if content == current.content.json { return }
                    try await draft.append(
                        "m.room.member", stateKey: requester.userID.string, content: content, sender: requester.userID)
                }
            } catch let error as MatrixError where error.code == .forbidden {
                // A room that doesn't let the user change the event keeps showing the old profile.
            }
        }
    }
}
