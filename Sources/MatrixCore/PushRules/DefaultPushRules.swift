extension PushRuleSet {
    /// The rules that every user starts with (Client-Server API, Push Rules, Predefined Rules).
    ///
    /// - Parameter followingThreads: whether threads notify those who follow them, and nobody else (MSC4306).
    public static func defaults(for user: UserID, followingThreads: Bool = false) -> PushRuleSet {
        let owner = JSON.string(user.string)
        return PushRuleSet([
            .postcontent: followingThreads ? threads : [],
            .override: [
                rule(".m.rule.master", isEnabled: false, [], []),
                rule(".m.rule.suppress_notices", [match("content.msgtype", "m.notice")], []),
                rule(
                    ".m.rule.invite_for_me",
                    [
                        match("type", "m.room.member"), match("content.membership", "invite"),
                        match("state_key", owner),
                    ], ["notify", sound("default")]),
                rule(".m.rule.member_event", [match("type", "m.room.member")], []),
                rule(
                    ".m.rule.is_user_mention",
                    [property("event_property_contains", #"content.m\.mentions.user_ids"#, owner)],
                    ["notify", sound("default"), highlight]),
                rule(
                    ".m.rule.is_room_mention",
                    [
                        property("event_property_is", #"content.m\.mentions.room"#, true),
                        ["kind": "sender_notification_permission", "key": "room"],
                    ], ["notify", highlight]),
                rule(
                    ".m.rule.tombstone", [match("type", "m.room.tombstone"), match("state_key", "")],
                    ["notify", highlight]),
                rule(".m.rule.reaction", [match("type", "m.reaction")], []),
                rule(".m.rule.room.server_acl", [match("type", "m.room.server_acl"), match("state_key", "")], []),
                rule(
                    ".m.rule.suppress_edits",
                    [property("event_property_is", #"content.m\.relates_to.rel_type"#, "m.replace")], []),
            ],
            .underride: [
                rule(".m.rule.call", [match("type", "m.call.invite")], ["notify", sound("ring")]),
                rule(
                    ".m.rule.encrypted_room_one_to_one", [twoMembers, match("type", "m.room.encrypted")],
                    ["notify", sound("default")]),
                rule(
                    ".m.rule.room_one_to_one", [twoMembers, match("type", "m.room.message")],
                    ["notify", sound("default")]),
                rule(".m.rule.message", [match("type", "m.room.message")], ["notify"]),
                rule(".m.rule.encrypted", [match("type", "m.room.encrypted")], ["notify"]),
            ],
        ])
    }

    /// The rules by which threads notify those who follow them, and nobody else (MSC4306, "New Push Rules").
    public static let threads = [
        rule(".io.element.msc4306.rule.unsubscribed_thread", [subscription(false)], []),
        rule(
            ".io.element.msc4306.rule.subscribed_thread", [subscription(true)], ["notify", sound("default")]),
    ]

    private static func subscription(_ isSubscribed: Bool) -> JSON {
        ["kind": .string(PushCondition.threadSubscription), "subscribed": .bool(isSubscribed)]
    }

    private static let highlight: JSON = ["set_tweak": "highlight"]
    private static let twoMembers: JSON = ["kind": "room_member_count", "is": "2"]

    private static func sound(_ name: JSON) -> JSON { ["set_tweak": "sound", "value": name] }

    private static func match(_ key: JSON, _ pattern: JSON) -> JSON {
        ["kind": "event_match", "key": key, "pattern": pattern]
    }

    private static func property(_ kind: JSON, _ key: JSON, _ value: JSON) -> JSON {
        ["kind": kind, "key": key, "value": value]
    }

    private static func rule(
        _ id: String, isEnabled: Bool = true, _ conditions: [JSON], _ actions: [JSON]
    ) -> PushRule {
        PushRule(
            id: id, isDefault: true, isEnabled: isEnabled, actions: PushActions(actions),
            conditions: conditions.map(PushCondition.init))
    }
}
