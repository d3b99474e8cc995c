import Database
import Logging
import MatrixCore

/// Invitations of people who were known by an e-mail address or a telephone number only, once it is known who they are
/// (Server-Server API, "Third-party invites"). The identity server's signature stands in for the sender's server's: whether it is right, the
/// room's authorisation rules decide.
public final class ThirdPartyInvites: Sendable {
    private let federated: FederatedRooms
    private let remote: RemoteMemberships
    private let logger: Logger
    private var rooms: RoomRegistry { federated.rooms }
    private var database: Database { federated.database }
    private var context: RoomContext { federated.context }

    /// Invitations that a notification may bring.
    private static let most = 50

    init(federated: FederatedRooms, remote: RemoteMemberships, logger: Logger) {
        self.federated = federated
        self.remote = remote
        self.logger = logger
    }

    /// What an identity server says: an identifier that was invited is a user's.
    private struct Claim {
        let roomID: RoomID
        /// Who had invited the identifier.
        let sender: UserID
        let user: UserID
        let token: String
        let signed: JSON

        init?(room: JSONView?, sender: JSONView?, user: JSONView?, signed: JSONView?) {
            guard let roomID = room?.string.flatMap({ RoomID($0) }),
                let sender = sender?.string.flatMap({ UserID($0) }),
                let user = user?.string.flatMap({ UserID($0) }), let signed, signed.isObject,
                signed["mxid"]?.isString(user.string) == true, let token = signed["token"]?.string,
                signed["signatures"]?.isObject == true
            else { return nil }
            self.roomID = roomID
            self.sender = sender
            self.user = user
            self.token = token
            self.signed = signed.json
        }
    }

    /// An identity server tells that an identifier belongs to a user of this server (`PUT /3pid/onbind`). It doesn't say who it is, so
    /// nothing is believed but what it has signed. What can't be invited is left out.
    public func bound(_ body: JSONView) async throws {
        guard let invites = body["invites"], invites.isArray else { throw MatrixError.missingParam("invites") }
        guard invites.count <= Self.most else {
            throw MatrixError.invalidParam("A notification brings up to \(Self.most) invitations.")
        }
        for invite in invites.elements {
            guard
                let claim = Claim(
                    room: invite["room_id"], sender: invite["sender"], user: invite["mxid"], signed: invite["signed"]),
                claim.user.server == context.serverName, let account = try await database.account(of: claim.user),
                !account.isDeactivated
            else { continue }
            do {
                try await InvitePermission(database: database).check(claim.user)
                if let room = try await rooms.room(claim.roomID), try await federated.isResident(room) {
                    try await self.invite(claim, to: room)
                } else if claim.sender.server != context.serverName {
                    try await remote.exchange(
                        [
                            "type": "m.room.member", "room_id": .string(claim.roomID.string),
                            "sender": .string(claim.sender.string), "state_key": .string(claim.user.string),
                            "content": content(of: claim, name: invite["address"]?.string ?? claim.user.localpart),
                        ], in: claim.roomID, with: claim.sender.server)
                }
            } catch let error as MatrixError {
                logger.notice(
                    "an invitation by a third-party identifier failed",
                    metadata: [
                        "user": "\(claim.user)", "room": "\(claim.roomID)", "reason": "\(error.message)",
                    ])
            }
        }
    }

    /// The server of somebody who was invited so asks for the invitation (`PUT /exchange_third_party_invite/{roomId}`).
    public func exchange(_ body: JSONView, in roomID: RoomID, for server: ServerName) async throws {
        let room = try await federated.room(roomID, for: server)
        guard body["type"]?.isString("m.room.member") == true, body["room_id"]?.isString(roomID.string) == true,
            body["content"]?["membership"]?.isString("invite") == true,
            let claim = Claim(
                room: body["room_id"], sender: body["sender"], user: body["state_key"],
                signed: body["content"]?["third_party_invite"]?["signed"])
        else { throw MatrixError.badJSON("This is no invitation by a third-party identifier.") }
        guard claim.user.server == server else {
            throw MatrixError.forbidden("\(claim.user) is not a user of \(server).")
        }
        guard claim.sender.server == context.serverName else {
            throw MatrixError.forbidden("\(claim.sender) is not a user of this server.")
        }
        try await invite(claim, to: room)
    }

    private func content(of claim: Claim, name: String) -> JSON {
        [
            "membership": "invite",
            "third_party_invite": ["display_name": .string(name), "signed": claim.signed],
        ]
    }

    private func invite(_ claim: Claim, to room: Room) async throws {
        let issued = try await federated.state(StateKey("m.room.third_party_invite", claim.token), of: room)
        guard let issued else { throw MatrixError.forbidden("The room has no third-party invite with this token.") }
        let content = content(of: claim, name: issued.content["display_name"]?.string ?? "")
        if claim.user.server != context.serverName {
            return try await remote.invite(claim.user, to: room, content: content, by: claim.sender)
        }
        try await rooms.perform(in: room) { draft in
            guard try await draft.membership(of: claim.user) != .join else { return }
            try await draft.append(
                "m.room.member", stateKey: claim.user.string, content: content, sender: claim.sender)
        }
    }
}
