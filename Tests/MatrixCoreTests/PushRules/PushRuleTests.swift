import Testing

@testable import MatrixCore

/// Client-Server API, Push Rules.
@Suite("Push rules") struct PushRuleTests {
    static let owner = UserID(unchecked: "@user:hs")
    var scene: Scene

    init() throws { scene = try Scene(.v11) }

    func context(members: Int = 5, name: String? = nil) -> PushContext {
        PushContext(
            memberCount: members, displayName: name,
            powerLevels: PowerLevels(event: scene.room.state[.powerLevels], create: scene.room.events[0]))
    }

    mutating func message(
        _ content: JSON, type: String = "m.room.message", by sender: String = Scene.mod, stateKey: String? = nil
    )
        throws -> Event
    {
        try scene.event(type, by: sender, stateKey: stateKey, content)
    }

    mutating func holds(_ condition: JSON, _ content: JSON, members: Int = 5, name: String? = nil) throws -> Bool {
        PushCondition(condition).holds(for: try message(content), in: context(members: members, name: name))
    }

    @Test(
        "event_match: the whole value, whatever the case, strings only",
        arguments: [
            ("lunc?*", "Lunch plans", true), ("lunc?*", "LUNCH", true), ("lunc?*", " lunch", false),
            ("lunc?*", "lunc", false), ("*", nil, false),
            ("*", 5, false), ("5", 5, false), ("*", "", true), ("a", "a b", false),
        ] as [(String, JSON, Bool)])
    mutating func eventMatch(pattern: String, value: JSON, isMatch: Bool) throws {
        let condition: JSON = ["kind": "event_match", "key": "content.topic", "pattern": .string(pattern)]
        #expect(try holds(condition, ["topic": value]) == isMatch)
        #expect(try !holds(condition, [:]))
    }

    @Test(
        "event_match on content.body: between word boundaries",
        arguments: [
            ("ex*ple", "An example event.", true), ("ex*ple", "exple", true),
            ("ex*ple", "An exciting triple-whammy", true),
            ("cake", "pancakes", false),
        ])
    mutating func eventMatchBody(pattern: String, body: String, isMatch: Bool) throws {
        let condition: JSON = ["kind": "event_match", "key": "content.body", "pattern": .string(pattern)]
        #expect(try holds(condition, ["body": .string(body)]) == isMatch)
    }

    @Test(
        "paths: dots separate, a backslash keeps dots and backslashes",
        arguments: [
            (#"content.m\.relates_to.rel_type"#, ["m.relates_to": ["rel_type": "x"]], true),
            ("content.m.relates_to", ["m.relates_to": "x"], false),
            (#"content.a\\b"#, [#"a\b"#: "x"], true), (#"content.a\xb"#, [#"a\xb"#: "x"], true),
            ("content.a.b", ["a": ["b": "x"]], true),
            ("content.a.", ["a": ["": "x"]], true), ("content.a", ["a": ["b": "x"]], false), ("content", [:], false),
        ] as [(String, JSON, Bool)])
    mutating func paths(key: String, content: JSON, isMatch: Bool) throws {
        #expect(try holds(["kind": "event_match", "key": .string(key), "pattern": "x"], content) == isMatch)
    }

    @Test(
        "event_property_is compares without casts",
        arguments: [
            (true, true, true), (true, "true", false), (true, 1, false), (1, 1, true), (1, "1", false),
            (nil, nil, true), ("a", "a", true),
            ("a", "A", false), (["a"], ["a"], false), ([:], [:], false), (1.5, 1.5, false),
            ("\u{E9}", "e\u{301}", false),
        ] as [(JSON, JSON, Bool)])
    mutating func propertyIs(value: JSON, property: JSON, isMatch: Bool) throws {
        let isCanonical = if case .double = property { false } else { true }
        guard isCanonical else { return }
        #expect(
            try holds(["kind": "event_property_is", "key": "content.p", "value": value], ["p": property]) == isMatch)
        #expect(try !holds(["kind": "event_property_is", "key": "content.q", "value": value], ["p": property]))
    }

    @Test(
        "event_property_contains looks for an exact element",
        arguments: [
            ("#myroom:example.com", ["#other:x", "#myroom:example.com"], true),
            (":example.com", ["#myroom:example.com"], false),
            (1, [["x"], 1], true), (nil, [nil], true), ("x", "x", false), ("x", ["x": "x"], false), ("x", [], false),
        ] as [(JSON, JSON, Bool)])
    mutating func propertyContains(value: JSON, property: JSON, isMatch: Bool) throws {
        #expect(
            try holds(["kind": "event_property_contains", "key": "content.p", "value": value], ["p": property])
                == isMatch)
    }

    @Test(
        "room_member_count",
        arguments: [
            ("5", true), ("==5", true), ("<5", false), ("<6", true), (">5", false), (">4", true), ("<=5", true),
            ("<=4", false), (">=5", true),
            (">=6", false), ("", false), ("=5", false), ("five", false), ("5 ", false), ("<>5", false),
            ("99999999999999999999", false),
        ])
    mutating func memberCount(text: String, isMatch: Bool) throws {
        #expect(try holds(["kind": "room_member_count", "is": .string(text)], [:]) == isMatch)
    }

    @Test(
        "contains_display_name takes the name literally, at word boundaries",
        arguments: [
            ("Alice", "hello alice!", true), ("Alice", "malice", false), ("A*e", "hello alice", false),
            ("A*e", "hello a*e", true), ("", "x", false),
        ])
    mutating func displayName(name: String, body: String, isMatch: Bool) throws {
        #expect(try holds(["kind": "contains_display_name"], ["body": .string(body)], name: name) == isMatch)
        #expect(try !holds(["kind": "contains_display_name"], ["body": .string(body)]))
    }

    @Test("sender_notification_permission asks the power levels")
    mutating func notificationPermission() throws {
        let condition = PushCondition(["kind": "sender_notification_permission", "key": "room"])
        #expect(condition.holds(for: try message([:], by: Scene.mod), in: context()))
        #expect(!condition.holds(for: try message([:], by: Scene.far), in: context()))
    }

    @Test(
        "conditions that are unknown or malformed never hold",
        arguments: [
            ["kind": "org.example"], ["kind": "event_match", "key": "type"], ["kind": "event_match", "pattern": "*"],
            [:], "x",
            ["kind": "event_property_is", "key": "type", "value": ["x"]], ["kind": "event_property_is", "key": "type"],
            ["kind": "room_member_count"], ["kind": "sender_notification_permission"],
        ] as [JSON])
    mutating func unrecognised(condition: JSON) throws {
        #expect(try !holds(condition, [:]))
        #expect(PushCondition(condition).json == condition)
    }

    // The default rules.

    mutating func rule(_ event: Event, members: Int = 5) -> String? {
        PushRuleSet.defaults(for: Self.owner).matchingRule(for: event, in: context(members: members))?.id
    }

    @Test("which default rule matches what")
    mutating func defaults() throws {
        #expect(rule(try message(["msgtype": "m.text", "body": "x"])) == ".m.rule.message")
        #expect(rule(try message(["msgtype": "m.notice", "body": "x"])) == ".m.rule.suppress_notices")
        #expect(rule(try message(["msgtype": "m.text"]), members: 2) == ".m.rule.room_one_to_one")
        #expect(rule(try message([:], type: "m.room.encrypted")) == ".m.rule.encrypted")
        #expect(rule(try message([:], type: "m.room.encrypted"), members: 2) == ".m.rule.encrypted_room_one_to_one")
        #expect(rule(try message([:], type: "m.call.invite")) == ".m.rule.call")
        #expect(rule(try message([:], type: "m.reaction")) == ".m.rule.reaction")
        #expect(rule(try message(["m.mentions": ["user_ids": ["@user:hs"]]])) == ".m.rule.is_user_mention")
        #expect(rule(try message(["m.mentions": ["user_ids": ["@other:hs"]]])) == ".m.rule.message")
        #expect(rule(try message(["m.mentions": ["room": true]], by: Scene.mod)) == ".m.rule.is_room_mention")
        #expect(rule(try message(["m.mentions": ["room": true]], by: Scene.far)) == ".m.rule.message")
        #expect(rule(try message(["m.relates_to": ["rel_type": "m.replace"]])) == ".m.rule.suppress_edits")
        #expect(rule(try message([:], type: "m.room.tombstone", stateKey: "")) == ".m.rule.tombstone")
        #expect(rule(try message([:], type: "m.room.tombstone")) == nil)
        #expect(rule(try message([:], type: "m.room.server_acl", stateKey: "")) == ".m.rule.room.server_acl")
        #expect(rule(try message([:], type: "org.example")) == nil)
        #expect(rule(try scene.member("@user:hs", "invite", by: Scene.mod)) == ".m.rule.invite_for_me")
        #expect(rule(try scene.member("@other:hs", "invite", by: Scene.mod)) == ".m.rule.member_event")
    }

    @Test("actions of the default rules")
    mutating func actions() throws {
        let rules = PushRuleSet.defaults(for: Self.owner)
        func actions(_ event: Event) -> PushActions { rules.actions(for: event, user: Self.owner, in: context()) }
        let mention = actions(try message(["m.mentions": ["user_ids": ["@user:hs"]]]))
        #expect(mention.notify && mention.highlight && mention.tweak("sound") == "default")
        #expect(mention.tweaks == ["sound": "default", "highlight": true])
        let plain = actions(try message([:]))
        #expect(plain.notify && !plain.highlight && plain.tweak("sound") == nil)
        #expect(actions(try message([:], type: "m.call.invite")).tweak("sound") == "ring")
        #expect(!actions(try message(["msgtype": "m.notice"])).notify)
        // Nobody is told of what they did themselves.
        #expect(!actions(try message(["m.mentions": ["user_ids": ["@user:hs"]]], by: "@user:hs")).notify)
    }

    @Test("the default rules have the IDs, places and form of the text")
    func defaultForm() {
        let rules = PushRuleSet.defaults(for: Self.owner)
        let overrides = [
            "master", "suppress_notices", "invite_for_me", "member_event", "is_user_mention", "is_room_mention",
            "tombstone",
            "reaction", "room.server_acl", "suppress_edits",
        ]
        #expect(rules[.override].map(\.id) == overrides.map { ".m.rule.\($0)" })
        let underrides = ["call", "encrypted_room_one_to_one", "room_one_to_one", "message", "encrypted"]
        #expect(rules[.underride].map(\.id) == underrides.map { ".m.rule.\($0)" })
        #expect(rules[.override].filter { !$0.isEnabled }.map(\.id) == [".m.rule.master"])
        #expect(rules.json["room"] == [])
        let call = rules.rule(".m.rule.call", kind: .underride)?.json(kind: .underride)
        let expected: JSON = [
            "rule_id": ".m.rule.call", "default": true, "enabled": true,
            "conditions": [["key": "type", "kind": "event_match", "pattern": "m.call.invite"]],
            "actions": ["notify", ["set_tweak": "sound", "value": "ring"]],
        ]
        #expect(call == expected)
        #expect(PushRuleSet(rules.json).json == rules.json)
    }

    @Test("the order of kinds, and what is switched off")
    mutating func order() throws {
        var rules = PushRuleSet.defaults(for: Self.owner)
        let event = try message(["body": "cake time"])
        func matching() -> String? { rules.matchingRule(for: event, in: context())?.id }
        #expect(matching() == ".m.rule.message")
        try rules.set(PushRule(id: Scene.mod, actions: .none), kind: .sender)
        #expect(matching() == Scene.mod)
        try rules.set(PushRule(id: event.roomID.string, actions: .none), kind: .room)
        #expect(matching() == event.roomID.string)
        try rules.set(PushRule(id: "cake", actions: .none, pattern: "CAKE"), kind: .content)
        #expect(matching() == "cake")
        try rules.set(PushRule(id: "all", actions: .none), kind: .override)
        #expect(matching() == "all")
        rules[.override][0].isEnabled = true
        #expect(matching() == ".m.rule.master")
        rules[.override][0].isEnabled = false
        rules[.override][1].isEnabled = false
        #expect(matching() == "cake")
    }

    @Test("new rules go to the top, below the master rule, or next to a neighbour")
    func placement() throws {
        var rules = PushRuleSet.defaults(for: Self.owner)
        for id in ["a", "b", "c"] { try rules.set(PushRule(id: id, actions: .none), kind: .override) }
        #expect(rules[.override].prefix(5).map(\.id) == [".m.rule.master", "c", "b", "a", ".m.rule.suppress_notices"])
        try rules.set(PushRule(id: "a", actions: .none), kind: .override, before: "c")
        #expect(rules[.override].prefix(4).map(\.id) == [".m.rule.master", "a", "c", "b"])
        try rules.set(PushRule(id: "a", actions: .none), kind: .override, after: "b")
        #expect(rules[.override].prefix(4).map(\.id) == [".m.rule.master", "c", "b", "a"])
        #expect(throws: PushRuleSet.PlacementError.noSuchNeighbour) {
            try rules.set(PushRule(id: "d", actions: .none), kind: .override, before: ".m.rule.master")
        }
        #expect(throws: PushRuleSet.PlacementError.reservedID) {
            try rules.set(PushRule(id: ".d", actions: .none), kind: .override)
        }
        #expect(rules[.override].count == 13)
    }

    /// MSC4306, "New Push Rules".
    @Test(
        "whether a thread is followed decides between mentions and rules about the room",
        arguments: [
            (nil, [], ".m.rule.message"), (false, [], ".io.element.msc4306.rule.unsubscribed_thread"),
            (true, [], ".io.element.msc4306.rule.subscribed_thread"),
            (false, ["m.mentions"], ".m.rule.is_user_mention"), (true, ["m.mentions"], ".m.rule.is_user_mention"),
            (nil, ["room"], "!room"), (false, ["room"], ".io.element.msc4306.rule.unsubscribed_thread"),
            (true, ["room"], ".io.element.msc4306.rule.subscribed_thread"), (true, ["content"], "keyword"),
            (false, ["content"], "keyword"), (true, ["override"], "all"), (false, ["override"], "all"),
        ] as [(Bool?, [String], String)])
    mutating func threads(isSubscribed: Bool?, with extra: [String], rule: String) throws {
        var rules = PushRuleSet.defaults(for: Self.owner, followingThreads: true)
        let mentions: JSON = ["user_ids": extra.contains("m.mentions") ? [.string(Self.owner.string)] : []]
        let event = try message(["body": "cake", "m.mentions": mentions])
        if extra.contains("room") { try rules.set(PushRule(id: event.roomID.string, actions: .none), kind: .room) }
        if extra.contains("content") {
            try rules.set(PushRule(id: "keyword", actions: .none, pattern: "cake"), kind: .content)
        }
        if extra.contains("override") { try rules.set(PushRule(id: "all", actions: .none), kind: .override) }
        var context = context()
        context.isSubscribedToThread = isSubscribed
        let found = rules.matchingRule(for: event, in: context)
        #expect(found?.id == (rule == "!room" ? event.roomID.string : rule))
        if rule.hasSuffix(".subscribed_thread") {
            #expect(found?.actions.json == ["notify", ["set_tweak": "sound", "value": "default"]])
        }
        if rule.hasSuffix("unsubscribed_thread") { #expect(found?.actions.notify == false) }
    }

    @Test(
        "thread_subscription: holds in threads alone, and for a boolean alone",
        arguments: [
            (true, true, true), (true, false, false), (true, nil, false), (false, true, false), (false, false, true),
            (false, nil, false), ("true", true, false), (nil, nil, false), (nil, true, false),
        ] as [(JSON?, Bool?, Bool)])
    mutating func threadSubscription(subscribed: JSON?, isSubscribed: Bool?, holds: Bool) throws {
        var condition: JSON = ["kind": "io.element.msc4306.thread_subscription"]
        condition["subscribed"] = subscribed
        var context = context()
        context.isSubscribedToThread = isSubscribed
        #expect(PushCondition(condition).holds(for: try message([:]), in: context) == holds)
    }

    @Test("the kind of the rules about threads is shown only where there are some")
    func postcontent() {
        #expect(PushRuleSet.defaults(for: Self.owner).json["postcontent"] == nil)
        let rules = PushRuleSet.defaults(for: Self.owner, followingThreads: true)
        #expect(
            rules.json.objectValue?.map(\.key) == ["override", "content", "postcontent", "room", "sender", "underride"])
        #expect(
            rules.json["postcontent"]?.arrayValue?.first == [
                "rule_id": ".io.element.msc4306.rule.unsubscribed_thread", "default": true, "enabled": true,
                "conditions": [["kind": "io.element.msc4306.thread_subscription", "subscribed": false]], "actions": [],
            ])
        #expect(PushRuleSet(rules.json).json == rules.json)
    }

    @Test("historical actions are dropped")
    func historicalActions() {
        #expect(PushActions(["dont_notify"]) == .none)
        #expect(PushActions(["notify", "coalesce"]).json == ["notify"])
        #expect(PushActions(["notify", ["set_tweak": "highlight", "value": false]]).highlight == false)
        #expect(PushActions([["set_tweak": "highlight"]]).highlight == false)
    }
}
