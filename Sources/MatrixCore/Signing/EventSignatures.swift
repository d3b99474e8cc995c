extension Event {
    /// The servers whose signatures the event must carry
    /// (Server-Server API, Validating hashes and signatures on received events).
    ///
    /// - The sender's server, unless the event is an invite that stems from a third-party invite.
    /// - In room versions 1 and 2 the server of the event ID.
    /// - From room version 8 on the server of `join_authorised_via_users_server` in membership events
    ///   (Room Version 8, Authorisation rules, 4.2).
    public var requiredSigners: [ServerName] {
        var signers: [ServerName] = []
        func add(_ server: ServerName?) {
            if let server, !signers.contains(server) { signers.append(server) }
        }
        if !isThirdPartyInvite { add(sender.server) }
        if version.rules.eventIDs == .assigned { add(eventID.server) }
        add(authorisingServer)
        return signers
    }

    /// An invite of someone whom the room knew by a third-party identifier only: another server than the sender's may send it.
    public var isThirdPartyInvite: Bool {
        type.hasSameBytes(as: "m.room.member") && content["membership"]?.isString("invite") == true
            && content["third_party_invite"] != nil
    }

    /// The server that vouches for a restricted join; nil if the room version has none or the field is no user ID.
    var authorisingServer: ServerName? {
        guard version.rules.authorization.restrictedJoins, type.hasSameBytes(as: "m.room.member") else { return nil }
        return content["join_authorised_via_users_server"]?.string.flatMap(UserID.init)?.server
    }

    /// The key IDs under which `server` has put signatures, those of unknown algorithms left out.
    public func signatureKeyIDs(of server: ServerName) -> [String] {
        root["signatures"]?[server.string]?.members.map(\.key).filter { $0.utf8.starts(with: "ed25519:".utf8) } ?? []
    }

    /// Whether `server` has signed the event with `key`, which must have been valid at the time if the room version asks
    /// for that (Appendices, Checking for a Signature).
    ///
    /// The signature covers the redacted event, so it holds for a redacted copy as well.
    public func verify(signatureOf server: ServerName, with key: VerifyKey) -> Bool {
        guard key.isUsable(for: self), let text = root["signatures"]?[server.string]?[key.keyID]?.string,
            let signature = Base64.decode(text)
        else { return false }
        return key.isValidSignature(signature, of: signedBytes())
    }
}
