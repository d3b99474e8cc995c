/// Rule 5 (4 in room versions 6 to 11): `m.room.member`.
extension Authorization.Context {
    func checkMembership() throws(AuthorizationError) {
        // 5.1.
        guard let target = event.stateKey, let membershipValue = event.content["membership"] else {
            throw AuthorizationError(.malformedMembership, "A member event has a state key and a membership.")
        }
        // 5.2. (from version 8 on)
        if rules.restrictedJoins, event.content["join_authorised_via_users_server"] != nil {
            guard let server = event.authorisingServer, !event.signatureKeyIDs(of: server).isEmpty else {
                throw AuthorizationError(
                    .notSignedByAuthorisingServer, "The server that authorises the join has not signed it.")
            }
        }
        switch Membership(membershipValue) {
        case .join: try checkJoin(target)
        case .invite: try checkInvite(target)
        case .leave: try checkLeave(target)
        case .ban: try checkBan(target)
        case .knock where rules.knocking: try checkKnock(target)
        default: throw AuthorizationError(.unknownMembership, "The membership is not one of this room version.")
        }
    }

    private enum JoinRule {
        case invite, knock, restricted, knockRestricted, `public`, other
    }

    /// The join rule of the room as its version knows it; `invite` if none is set.
    private var joinRule: JoinRule {
        guard let value = state[.joinRules]?.content["join_rule"] else { return .invite }
        if value.isString("public") { return .public }
        if value.isString("invite") { return .invite }
        if rules.knocking, value.isString("knock") { return .knock }
        if rules.restrictedJoins, value.isString("restricted") { return .restricted }
        if rules.knockRestricted, value.isString("knock_restricted") { return .knockRestricted }
        return .other
    }

    /// 5.3.
    private func checkJoin(_ target: String) throws(AuthorizationError) {
        // 5.3.1. Up to version 10 the creator is `content.creator`, from version 11 on the sender of the create event.
        if event.prevEvents == [create.eventID], create.roomCreators.first?.string.hasSameBytes(as: target) == true {
            return
        }
        // 5.3.2.
        guard event.sender.string.hasSameBytes(as: target) else {
            throw AuthorizationError(.join, "\(event.sender) may not join \(target) to the room.")
        }
        // 5.3.3.
        let membership = membership(of: target)
        guard membership != .ban else { throw AuthorizationError(.join, "\(target) is banned from the room.") }
        switch joinRule {
        // 5.3.4.
        case .invite, .knock:
            guard membership == .invite || membership == .join else {
                throw AuthorizationError(.join, "\(target) is not invited to the room.")
            }
        // 5.3.5. (from version 8 on)
        case .restricted, .knockRestricted:
            // 5.3.5.1.
            if membership == .invite || membership == .join { return }
            // 5.3.5.2.
            guard let authorising = event.content["join_authorised_via_users_server"]?.string,
                self.membership(of: authorising) == .join,
                powerLevels.level(of: UserID(unchecked: authorising)) >= .finite(powerLevels.invite)
            else {
                throw AuthorizationError(
                    .join, "\(target) is not invited, and nobody in the room who may invite vouches for the join.")
            }
        // 5.3.6.
        case .public:
            return
        // 5.3.7.
        case .other:
            throw AuthorizationError(.join, "The room has no join rule that lets \(target) in.")
        }
    }

    /// 5.4.
    private func checkInvite(_ target: String) throws(AuthorizationError) {
        // 5.4.1.
        if let invite = event.content["third_party_invite"] {
            try checkThirdPartyInvite(invite, target)
            return
        }
        // 5.4.2.
        guard membership(of: event.sender.string) == .join else {
            throw AuthorizationError(.invite, "\(event.sender) is not joined to the room.")
        }
        // 5.4.3.
        let membership = membership(of: target)
        guard membership != .join, membership != .ban else {
            throw AuthorizationError(.invite, "\(target) is already in the room, or banned from it.")
        }
        // 5.4.4, 5.4.5.
        let level = powerLevels.level(of: event.sender)
        guard level >= .finite(powerLevels.invite) else {
            throw AuthorizationError(
                .invite, "\(event.sender) has power level \(level), inviting needs \(powerLevels.invite).")
        }
    }

    /// 5.4.1.
    private func checkThirdPartyInvite(_ invite: JSONView, _ target: String) throws(AuthorizationError) {
        func refuse(_ reason: String) -> AuthorizationError { AuthorizationError(.thirdPartyInvite, reason) }
        // 5.4.1.1.
        guard membership(of: target) != .ban else { throw refuse("\(target) is banned from the room.") }
        // 5.4.1.2.
        guard let signed = invite["signed"] else { throw refuse("The third-party invite is not signed.") }
        // 5.4.1.3.
        guard let mxid = signed["mxid"], let token = signed["token"]?.string else {
            throw refuse("The third-party invite names no user or no token.")
        }
        // 5.4.1.4.
        guard mxid.isString(target) else { throw refuse("The third-party invite is for another user.") }
        // 5.4.1.5.
        guard let issued = state[.thirdPartyInvite(token)] else {
            throw refuse("The room has no third-party invite with this token.")
        }
        // 5.4.1.6.
        guard event.sender == issued.sender else { throw refuse("The third-party invite was made by someone else.") }
        // 5.4.1.7, 5.4.1.8.
        guard ThirdPartyInvite.isSigned(signed, issued: issued.content) else {
            throw refuse("The third-party invite is not signed with a key that it was issued with.")
        }
    }

    /// 5.5.
    private func checkLeave(_ target: String) throws(AuthorizationError) {
        let targetMembership = membership(of: target)
        // 5.5.1.
        if event.sender.string.hasSameBytes(as: target) {
            switch targetMembership {
            case .invite, .join: return
            case .knock where rules.knocking: return
            default: throw AuthorizationError(.leave, "\(target) is not in the room.")
            }
        }
        // 5.5.2.
        guard membership(of: event.sender.string) == .join else {
            throw AuthorizationError(.leave, "\(event.sender) is not joined to the room.")
        }
        let level = powerLevels.level(of: event.sender)
        // 5.5.3.
        if targetMembership == .ban, level < .finite(powerLevels.ban) {
            throw AuthorizationError(
                .leave, "\(event.sender) has power level \(level), lifting a ban needs \(powerLevels.ban).")
        }
        // 5.5.4, 5.5.5.
        guard level >= .finite(powerLevels.kick), powerLevels.level(of: UserID(unchecked: target)) < level else {
            throw AuthorizationError(.leave, "\(event.sender) has not the power to remove \(target).")
        }
    }

    /// 5.6.
    private func checkBan(_ target: String) throws(AuthorizationError) {
        // 5.6.1.
        guard membership(of: event.sender.string) == .join else {
            throw AuthorizationError(.ban, "\(event.sender) is not joined to the room.")
        }
        // 5.6.2, 5.6.3.
        let level = powerLevels.level(of: event.sender)
        guard level >= .finite(powerLevels.ban), powerLevels.level(of: UserID(unchecked: target)) < level else {
            throw AuthorizationError(.ban, "\(event.sender) has not the power to ban \(target).")
        }
    }

    /// 5.7. (from version 7 on)
    private func checkKnock(_ target: String) throws(AuthorizationError) {
        // 5.7.1.
        guard joinRule == .knock || joinRule == .knockRestricted else {
            throw AuthorizationError(.knock, "The room does not take knocks.")
        }
        // 5.7.2.
        guard event.sender.string.hasSameBytes(as: target) else {
            throw AuthorizationError(.knock, "\(event.sender) may not knock for \(target).")
        }
        // 5.7.3, 5.7.4.
        switch membership(of: target) {
        case .ban, .invite, .join:
            throw AuthorizationError(.knock, "\(target) is in the room, invited to it or banned from it.")
        case .leave, .knock:
            return
        }
    }
}

/// The proof that the owner of a third-party identifier accepted an invite (Server-Server API, Verifying the invite).
enum ThirdPartyInvite {
    /// An event has room for hundreds of signatures and the invite for hundreds of keys; at 60 µs for each try of one with
    /// the other an invite could cost half a minute. Identity servers sign once and publish two keys.
    static let maxVerifications = 100

    static func isSigned(_ signed: JSONView, issued: JSONView) -> Bool {
        guard let bytes = try? signed.canonical(omitting: ["signatures", "unsigned"], numbers: .historical) else {
            return false
        }
        let keys = publicKeys(issued)
        var verifications = 0
        guard let allSignatures = signed["signatures"] else { return false }
        for (_, signatures) in allSignatures.members {
            for (keyID, text) in signatures.members {
                guard keyID.utf8.starts(with: "ed25519:".utf8), let signature = text.string.flatMap(Base64.decode),
                    signature.count == 64
                else { continue }
                for publicKey in keys {
                    verifications += 1
                    guard verifications <= maxVerifications else { return false }
                    if VerifyKey(keyID: keyID, publicKey: publicKey)?.isValidSignature(signature, of: bytes) == true {
                        return true
                    }
                }
            }
        }
        return false
    }

    private static func publicKeys(_ issued: JSONView) -> [[UInt8]] {
        var texts: [String] = []
        if let single = issued["public_key"]?.string { texts.append(single) }
        if let several = issued["public_keys"] {
            texts += several.elements.compactMap { $0["public_key"]?.string }
        }
        return texts.prefix(maxVerifications).compactMap(Base64.decode).filter { $0.count == 32 }
    }
}
