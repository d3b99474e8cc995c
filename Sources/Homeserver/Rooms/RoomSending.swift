import Database
import MatrixCore

/// Sending messages and state into rooms (Client-Server API, "Sending events to a room").
public final class SendingService: Sendable {
    let rooms: RoomRegistry
    var database: Database { rooms.database }

    private let directory: DirectoryService

    init(rooms: RoomRegistry, directory: DirectoryService) {
        self.rooms = rooms
        self.directory = directory
    }

    /// Aliases of other servers that are looked up for one event.
    private static let mostLookedUp = 20

    /// Where the aliases of other servers that content names point to; those that can't be looked up are left out.
    private func aliasesElsewhere(_ content: JSON) async -> [RoomAlias: RoomID] {
        var found: [RoomAlias: RoomID] = [:]
        for alias in CanonicalAlias.others(in: content, than: rooms.context.serverName).prefix(Self.mostLookedUp) {
            found[alias] = try? await directory.resolve(alias).0
        }
        return found
    }

    private func known(_ roomID: RoomID) async throws -> Room {
        guard let room = try await rooms.room(roomID) else { throw MembershipService.notInRoom }
        return room
    }

    /// The key under which a transaction is remembered: of the device and the endpoint, as the specification scopes
    /// transaction IDs.
    private static func key(_ requester: Requester, endpoint: String, _ transactionID: String) -> [UInt8] {
        Array(Hashing.sha256(Array("\(requester.deviceID)\0\(endpoint)\0\(transactionID)".utf8)).prefix(16))
    }

    /// Sends a message event. The same transaction again answers the event it made.
    ///
    /// - Parameters:
    ///   - redacts: for redactions, what they redact.
    ///   - sticky: how long it is to be delivered to everybody, in milliseconds (MSC4354).
    public func send(
        _ type: String, content: JSON, to roomID: RoomID, transactionID: String, redacts: EventID? = nil,
        timestamp: Int64? = nil, sticky: Int64? = nil, by requester: Requester
    ) async throws -> EventID {
        let room = try await known(roomID)
        let endpoint = "\(redacts == nil ? "send" : "redact")\0\(roomID)\0\(redacts?.string ?? type)"
        let key = Self.key(requester, endpoint: endpoint, transactionID)
        return try await rooms.perform(in: room) { draft in
            try await draft.once(key, by: requester.nid) { draft in
                let redacts =
                    redacts
                    ?? (type == "m.room.redaction" ? content["redacts"]?.stringValue.flatMap { EventID($0) } : nil)
                try await SuspensionRules.checkMaySend(type, redacts: redacts, by: requester, self.database)
                guard try await !draft.hasAnnotation(content, type, by: requester.nid) else {
                    throw MatrixError(.duplicateAnnotation, "You have reacted in this way already.")
                }
                return try await draft.append(
                    type, content: content, sender: requester.userID, redacts: redacts,
                    transactionKey: "\(requester.deviceID)\0\(transactionID)", timestamp: timestamp, sticky: sticky
                ).eventID
            }
        }
    }

    /// Sets a piece of state; setting what the requester has set already changes nothing and answers that event.
    public func setState(
        _ key: StateKey, content: JSON, in roomID: RoomID, timestamp: Int64? = nil, sticky: Int64? = nil,
        by requester: Requester
    ) async throws -> EventID {
        let room = try await known(roomID)
        if key.type == "m.room.member", content["membership"] == "invite", let user = UserID(key.key) {
            try await InvitePermission(database: database).check(user)
        }
        let elsewhere = key == StateKey("m.room.canonical_alias") ? await aliasesElsewhere(content) : [:]
        return try await rooms.perform(in: room) { draft in
            if sticky == nil, let current = try await draft.state(key), current.sender == requester.userID,
                let wanted = try? content.canonical(), (try? current.content.canonical()) == wanted,
                try await !draft.isRedacted(current)
            {
                return current.eventID
            }
            if key == StateKey("m.room.canonical_alias") {
                let aliases = CanonicalAlias(
                    database: self.database, serverName: self.rooms.context.serverName, elsewhere: elsewhere)
                try await aliases.check(
                    content, replacing: try await draft.state(key)?.content, in: room.nid, room.roomID)
            }
            return try await draft.append(
                key.type, stateKey: key.key, content: content, sender: requester.userID, timestamp: timestamp,
                sticky: sticky
            ).eventID
        }
    }
}
