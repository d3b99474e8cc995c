extension Authorization {
    /// The state that decides about an event: what its `auth_events` have to be
    /// (Server-Server API, Auth events selection). The create event is among them up to room version 11.
    public static func requiredStateKeys(
        type: String, stateKey: String?, sender: UserID, content: JSON, version: RoomVersion
    ) -> [StateKey] {
        select(
            type: type, stateKey: stateKey, sender: sender, version: version,
            membership: content["membership"]?.stringValue,
            hasThirdPartyInvite: content["third_party_invite"] != nil,
            token: content["third_party_invite"]?["signed"]?["token"]?.stringValue,
            authorisingUser: content["join_authorised_via_users_server"]?.stringValue)
    }

    /// The same for content that has been parsed.
    public static func requiredStateKeys(
        type: String, stateKey: String?, sender: UserID, content: JSONView, version: RoomVersion
    ) -> [StateKey] {
        select(
            type: type, stateKey: stateKey, sender: sender, version: version,
            membership: content["membership"]?.string, hasThirdPartyInvite: content["third_party_invite"] != nil,
            token: content["third_party_invite"]?["signed"]?["token"]?.string,
            authorisingUser: content["join_authorised_via_users_server"]?.string)
    }

    /// The same for an event that there is already.
    public static func requiredStateKeys(for event: Event) -> [StateKey] {
        requiredStateKeys(
            type: event.type, stateKey: event.stateKey, sender: event.sender, content: event.content,
            version: event.version)
    }

    private static func select(
        type: String, stateKey: String?, sender: UserID, version: RoomVersion, membership: String?,
        hasThirdPartyInvite: Bool, token: String?, authorisingUser: String?
    ) -> [StateKey] {
        if type.hasSameBytes(as: "m.room.create") { return [] }
        var keys: [StateKey] = []
        func add(_ key: StateKey) {
            if !keys.contains(key) { keys.append(key) }
        }
        // Room Version 12: the room ID stands for the create event.
        if version.rules.roomIDs == .withDomain { add(.create) }
        add(.powerLevels)
        add(.member(sender.string))
        guard type.hasSameBytes(as: "m.room.member") else { return keys }
        if let stateKey { add(.member(stateKey)) }
        if let membership, ["join", "invite", "knock"].contains(where: { $0.hasSameBytes(as: membership) }) {
            add(.joinRules)
        }
        if membership?.hasSameBytes(as: "invite") == true, hasThirdPartyInvite, let token {
            add(.thirdPartyInvite(token))
        }
        if membership?.hasSameBytes(as: "join") == true, version.rules.authorization.restrictedJoins,
            let authorisingUser
        {
            add(.member(authorisingUser))
        }
        return keys
    }
}

extension StateKey {
    public static let create = StateKey("m.room.create")
    public static let powerLevels = StateKey("m.room.power_levels")
    public static let joinRules = StateKey("m.room.join_rules")
    public static let historyVisibility = StateKey("m.room.history_visibility")
    public static let encryption = StateKey("m.room.encryption")
    public static let serverACL = StateKey("m.room.server_acl")
    public static let policy = StateKey("m.room.policy")
    public static func member(_ user: UserID) -> StateKey { StateKey("m.room.member", user.string) }
    static func member(_ user: String) -> StateKey { StateKey("m.room.member", user) }
    static func thirdPartyInvite(_ token: String) -> StateKey { StateKey("m.room.third_party_invite", token) }
}
