import Testing

@testable import MatrixCore

/// Room Versions, Authorisation rules, 3, 4 and 6 to 9.
@Suite("Rules 3 to 9: who may send what") struct SendingRuleTests {
    @Test("a room that does not federate is for the creator's server alone", arguments: RoomVersion.all)
    func federate(version: RoomVersion) throws {
        for (value, isOpen) in [(false, false), (true, true), (nil, true)] as [(Bool?, Bool)] {
            var scene = try Scene(version, create: value.map { ["m.federate": .bool($0)] } ?? [:])
            #expect(scene.refusal(try scene.event("m.room.message", by: Scene.far)) == (isOpen ? nil : .notFederated))
            #expect(scene.refusal(try scene.member("@x:away", "join")) == (isOpen ? nil : .notFederated))
            #expect(scene.refusal(try scene.event("m.room.message", by: Scene.user)) == nil)
        }
    }

    @Test("aliases: by domain up to version 5, like any other state afterwards", arguments: RoomVersion.all)
    func aliases(version: RoomVersion) throws {
        var scene = try Scene(version)
        let isSpecial = version.number <= 5
        func refusal(by sender: String, _ stateKey: String?) throws -> AuthorizationError.Rule? {
            scene.refusal(try scene.event("m.room.aliases", by: sender, stateKey: stateKey))
        }
        #expect(try refusal(by: Scene.user, "hs") == (isSpecial ? nil : .requiredPowerLevel))
        #expect(try refusal(by: Scene.stranger, "hs") == (isSpecial ? nil : .senderNotJoined))
        #expect(try refusal(by: Scene.creator, "away") == (isSpecial ? .aliases : nil))
        #expect(try refusal(by: Scene.creator, nil) == (isSpecial ? .aliases : nil))
        #expect(try refusal(by: Scene.creator, "") == (isSpecial ? .aliases : nil))
    }

    @Test("only joined users send", arguments: RoomVersion.all)
    func joined(version: RoomVersion) throws {
        for membership in [nil, "invite", "leave", "ban", "knock"] {
            var scene = try Scene(version)
            if let membership { try scene.room.addMember(Scene.stranger, membership, by: Scene.creator) }
            #expect(scene.refusal(try scene.event("m.room.message", by: Scene.stranger)) == .senderNotJoined)
        }
        var scene = try Scene(version)
        #expect(scene.refusal(try scene.event("m.room.message", by: Scene.user)) == nil)
    }

    @Test("third-party invites need the invite level and nothing else", arguments: RoomVersion.all)
    func thirdPartyInvites(version: RoomVersion) throws {
        var scene = try Scene(version, powerLevels: ["invite": 50, "state_default": 100])
        let type = "m.room.third_party_invite"
        #expect(scene.refusal(try scene.event(type, by: Scene.mod, stateKey: "t")) == nil)
        #expect(scene.refusal(try scene.event(type, by: Scene.mod, stateKey: Scene.creator)) == nil)
        #expect(scene.refusal(try scene.event(type, by: Scene.user, stateKey: "t")) == .inviteLevel)
        #expect(scene.refusal(try scene.event(type, by: Scene.stranger, stateKey: "t")) == .senderNotJoined)
    }

    @Test("required levels: explicit, by default, and without power levels", arguments: RoomVersion.all)
    func requiredLevels(version: RoomVersion) throws {
        var plain = try Scene(version)
        #expect(plain.refusal(try plain.event("m.room.topic", by: Scene.mod, stateKey: "")) == nil)
        #expect(plain.refusal(try plain.event("m.room.topic", by: Scene.user, stateKey: "")) == .requiredPowerLevel)
        #expect(plain.refusal(try plain.event("m.room.topic", by: Scene.user)) == nil)

        var levels = try Scene(
            version,
            powerLevels: [
                "events": ["a": 50, "b": 51, "c": -1], "state_default": 20, "events_default": 10, "users_default": 10,
            ])
        for (type, stateKey, sender, isAllowed) in [
            ("a", "", Scene.mod, true), ("a", nil, Scene.mod, true), ("b", "", Scene.mod, false),
            ("b", nil, Scene.mod, false),
            ("c", "", Scene.user, true), ("d", "", Scene.user, false), ("d", nil, Scene.user, true),
            ("a", nil, Scene.user, false),
        ] {
            let refusal = levels.refusal(try levels.event(type, by: sender, stateKey: stateKey))
            #expect(refusal == (isAllowed ? nil : .requiredPowerLevel), "\(type) \(stateKey ?? "-") \(sender)")
        }

        var none = try Scene(version, powerLevels: nil)
        #expect(none.refusal(try none.event("m.room.topic", by: Scene.creator, stateKey: "")) == nil)
        #expect(none.refusal(try none.event("m.room.topic", by: Scene.mod, stateKey: "")) == .requiredPowerLevel)
        #expect(none.refusal(try none.event("m.room.message", by: Scene.mod)) == nil)
    }

    @Test("a state key that is a user ID is that user's", arguments: RoomVersion.all)
    func stateKeys(version: RoomVersion) throws {
        var scene = try Scene(version)
        #expect(scene.refusal(try scene.event("x", by: Scene.mod, stateKey: Scene.mod)) == nil)
        #expect(scene.refusal(try scene.event("x", by: Scene.mod, stateKey: Scene.user)) == .stateKeyOfAnotherUser)
        #expect(scene.refusal(try scene.event("x", by: Scene.mod, stateKey: "@")) == .stateKeyOfAnotherUser)
        #expect(scene.refusal(try scene.event("x", by: Scene.mod, stateKey: "user")) == nil)
    }

    @Test("redactions: a matter of the rules in versions 1 and 2, of their effect later", arguments: RoomVersion.all)
    func redactions(version: RoomVersion) throws {
        var scene = try Scene(version)
        let byMod = try scene.room.add("m.room.message", sender: Scene.mod)
        let byFar = try scene.room.add("m.room.message", sender: Scene.far)
        let levels = PowerLevels(event: scene.room.state[.powerLevels], create: scene.room.events[0])
        for (sender, target, isAllowed) in [
            (Scene.user, byMod, true), (Scene.user, byFar, false), (Scene.mod, byFar, true), (Scene.far, byFar, true),
            (Scene.far, byMod, false),
        ] {
            let redaction = try scene.event("m.room.redaction", by: sender, redacts: target.eventID)
            #expect(redaction.redacts == target.eventID)
            #expect(scene.refusal(redaction) == (version.number > 2 || isAllowed ? nil : .redaction))
            if version.number > 2 {
                #expect(Authorization.redactionApplies(redaction, to: target, powerLevels: levels) == isAllowed)
            }
            #expect(!Authorization.redactionApplies(redaction, to: scene.room.events[0], powerLevels: levels))
        }
        #expect(
            scene.refusal(try scene.event("m.room.redaction", by: Scene.user))
                == (version.number > 2 ? nil : .redaction))
    }
}

/// Room Versions, Authorisation rules, 9 or 10: `m.room.power_levels`.
@Suite("Rule 10: power levels") struct PowerLevelRuleTests {
    /// The levels of the scene, with the creator where the room version allows it.
    func levels(_ version: RoomVersion, _ change: (inout JSON) -> Void = { _ in }) -> JSON {
        var levels: JSON = ["users": [Scene.mod: 50], "events": ["m.room.power_levels": 50]]
        if version.number < 12 { levels["users"]?[Scene.creator] = 100 }
        change(&levels)
        return levels
    }

    func refusal(
        _ version: RoomVersion, by sender: String = Scene.mod, from: (inout JSON) -> Void = { _ in },
        to: (inout JSON) -> Void
    ) throws -> AuthorizationError.Rule? {
        var scene = try Scene(version, powerLevels: levels(version, from))
        var new = levels(version, from)
        to(&new)
        return scene.refusal(try scene.event("m.room.power_levels", by: sender, stateKey: "", new))
    }

    static let names = ["users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"]

    @Test("no change is allowed, and so is the first event without one before", arguments: RoomVersion.all)
    func unchanged(version: RoomVersion) throws {
        #expect(try refusal(version) { _ in } == nil)
        var scene = try Scene(version, powerLevels: nil)
        let first = try scene.event(
            "m.room.power_levels", by: Scene.creator, stateKey: "", ["users": [Scene.user: 1_000], "ban": 1_000])
        #expect(scene.refusal(first) == nil)
    }

    @Test("named levels: neither the old nor the new value above one's own", arguments: RoomVersion.all)
    func named(version: RoomVersion) throws {
        for name in Self.names {
            #expect(try refusal(version) { $0[name] = 50 } == nil, "\(name) added")
            #expect(try refusal(version) { $0[name] = 51 } == .powerLevelTooHigh, "\(name) added")
            #expect(try refusal(version, from: { $0[name] = 50 }, to: { $0[name] = 51 }) == .powerLevelTooHigh)
            #expect(try refusal(version, from: { $0[name] = 50 }, to: { $0[name] = nil }) == nil, "\(name) removed")
        }
        for name in ["ban", "redact", "kick", "invite"] {
            #expect(try refusal(version, from: { $0[name] = 51 }, to: { $0[name] = 50 }) == .powerLevelTooHigh)
            #expect(try refusal(version, from: { $0[name] = 51 }, to: { $0[name] = nil }) == .powerLevelTooHigh)
        }
    }

    @Test("event levels, and notification levels from version 6 on", arguments: RoomVersion.all)
    func events(version: RoomVersion) throws {
        for map in ["events", "notifications"] {
            let isChecked = map == "events" || version.number >= 6
            let refused: AuthorizationError.Rule? = isChecked ? .powerLevelTooHigh : nil
            func with(_ value: JSON?) -> (inout JSON) -> Void {
                return { json in
                    var levels = json[map] ?? [:]
                    levels["x"] = value
                    json[map] = levels
                }
            }
            #expect(try refusal(version, to: with(50)) == nil)
            #expect(try refusal(version, to: with(51)) == refused)
            #expect(try refusal(version, from: with(51), to: with(50)) == refused)
            #expect(try refusal(version, from: with(51), to: with(nil)) == refused)
            #expect(try refusal(version, from: with(51), to: with(51)) == nil)
            #expect(try refusal(version, from: with(50), to: with(nil)) == nil)
        }
    }

    @Test("users: others only from below one's level, oneself only downwards", arguments: RoomVersion.all)
    func users(version: RoomVersion) throws {
        func with(_ user: String, _ value: JSON?) -> (inout JSON) -> Void {
            { $0["users"]?[user] = value }
        }
        #expect(try refusal(version, to: with(Scene.user, 50)) == nil)
        #expect(try refusal(version, to: with(Scene.user, 51)) == .powerLevelTooHigh)
        #expect(try refusal(version, from: with(Scene.user, 49), to: with(Scene.user, 0)) == nil)
        #expect(try refusal(version, from: with(Scene.user, 49), to: with(Scene.user, nil)) == nil)
        #expect(try refusal(version, from: with(Scene.user, 50), to: with(Scene.user, 0)) == .powerLevelTooHigh)
        #expect(try refusal(version, from: with(Scene.user, 50), to: with(Scene.user, nil)) == .powerLevelTooHigh)
        #expect(try refusal(version, from: with(Scene.user, 60), to: with(Scene.user, 50)) == .powerLevelTooHigh)
        #expect(try refusal(version, to: with(Scene.mod, 0)) == nil)
        #expect(try refusal(version, to: with(Scene.mod, nil)) == nil)
        #expect(try refusal(version, to: with(Scene.mod, 51)) == .powerLevelTooHigh)
    }

    @Test("users has to be an object of levels by user ID", arguments: RoomVersion.all)
    func malformedUsers(version: RoomVersion) throws {
        for users in [
            5, [], nil, "x", ["mod": 5], ["@mod": 5], [Scene.user: [:]], [Scene.user: nil], [Scene.user: true],
            [Scene.user: "x"],
        ]
            as [JSON]
        {
            #expect(try refusal(version) { $0["users"] = users } == .malformedPowerLevels)
        }
    }

    @Test("A04 levels as strings: up to version 9, in the spellings of the text", arguments: RoomVersion.all)
    func strings(version: RoomVersion) throws {
        let isAccepted = version.number <= 9
        for (text, value) in [("25", 25), ("0025", 25), ("+25", 25), (" 25 ", 25), ("-25", -25), (" -0025\n", -25)]
            as [(String, Int64)]
        {
            #expect(
                try refusal(version) { $0["users"]?[Scene.user] = .string(text) }
                    == (isAccepted ? nil : .malformedPowerLevels))
            guard isAccepted else { continue }
            let scene = try Scene(version, powerLevels: levels(version) { $0["users"]?[Scene.user] = .string(text) })
            let read = PowerLevels(event: scene.room.state[.powerLevels], create: scene.room.events[0])
            #expect(read.level(of: UserID(unchecked: Scene.user)) == .finite(value))
        }
        for text in ["", " ", "2 5", "2.5", "0x10", "1e2", "++1", "+-1", "²", "25x", "1_000"] {
            #expect(
                try refusal(version) { $0["users"]?[Scene.user] = .string(text) } == .malformedPowerLevels, "\(text)")
        }
        // A level of 51 that is a string is a level of 51 that is too high.
        #expect(
            try refusal(version) { $0["users"]?[Scene.user] = "51" }
                == (isAccepted ? .powerLevelTooHigh : .malformedPowerLevels))
    }

    @Test("A04 levels as floats: truncated up to version 5, no events at all afterwards", arguments: RoomVersion.all)
    func floats(version: RoomVersion) throws {
        for (text, value) in [("50.57", 50), ("5.114698E1", 51), ("-0.5", 0), ("1e400", nil)] as [(String, Int64?)] {
            let template = try Scene(version).room.events[2]
            var json = template.root.json
            json["content"] = .raw(Array(#"{"users":{"@user:hs":\#(text)}}"#.utf8))
            guard version.number <= 5 else {
                #expect(throws: EventError.self) { try Event(receiving: json.encoded(), version: version) }
                continue
            }
            guard let value else {
                // Beyond a double: refused already as an event, for it has no hash.
                #expect(throws: EventError.self) { try Event(receiving: json.encoded(), version: version) }
                continue
            }
            let event = try Event(receiving: json.encoded(), version: version)
            let create = try Scene(version).room.events[0]
            let levels = PowerLevels(event: event, create: create)
            #expect(levels.level(of: UserID(unchecked: Scene.user)) == .finite(value))
        }
    }

    @Test("A04 huge and negative levels", arguments: RoomVersion.all)
    func extremes(version: RoomVersion) throws {
        let largest: JSON = 9_007_199_254_740_991
        #expect(try refusal(version) { $0["users"]?[Scene.user] = largest } == .powerLevelTooHigh)
        #expect(try refusal(version) { $0["users"]?[Scene.user] = -9_007_199_254_740_991 } == nil)
        guard version.number <= 5 else { return }
        // Integers beyond 64 bits are above, or below, all others.
        for (text, level) in [("99999999999999999999999", Int64.max), ("-99999999999999999999999", .min)] {
            let users = JSON.raw(Array(#"{"@user:hs":\#(text)}"#.utf8))
            let value = try #require(try JSONDocument(parsing: users.encoded()).root["@user:hs"])
            #expect(PowerLevels.read(value, as: .integersStringsAndFloats) == level)
            let string = try JSONDocument(parsing: Array("\"\(text)\"".utf8)).root
            #expect(PowerLevels.read(string, as: .integersAndStrings) == level)
        }
    }

    @Test("A04 from version 10 on every level has to be an integer", arguments: RoomVersion.all)
    func integers(version: RoomVersion) throws {
        let refused: AuthorizationError.Rule? = version.number >= 10 ? .malformedPowerLevels : nil
        for name in Self.names {
            for value in ["50", nil, [], true] as [JSON] {
                #expect(try refusal(version) { $0[name] = value } == refused, "\(name)")
            }
        }
        for map in ["events", "notifications"] {
            for value in [["m.room.power_levels": 50, "x": "1"], ["m.room.power_levels": 50, "x": nil], [], 5, nil]
                as [JSON]
            {
                #expect(try refusal(version) { $0[map] = value } == refused, "\(map)")
            }
        }
    }

    @Test("A04 from version 12 on power levels may not name a creator", arguments: RoomVersion.all)
    func creators(version: RoomVersion) throws {
        var scene = try Scene(version, create: ["additional_creators": ["@second:hs"]])
        for creator in [Scene.creator, "@second:hs"] {
            let event = try scene.event(
                "m.room.power_levels", by: Scene.creator, stateKey: "", levels(version) { $0["users"]?[creator] = 100 })
            #expect(scene.refusal(event) == (version.number >= 12 ? .powerLevelsNameCreator : nil))
        }
    }

    @Test("A04 creators of version 12 stand above every level, and cannot be removed", arguments: RoomVersion.from(11))
    func infinitePower(version: RoomVersion) throws {
        let largest: JSON = 9_007_199_254_740_991
        var scene = try Scene(version, powerLevels: levels(version), create: ["additional_creators": ["@second:hs"]])
        try scene.room.addMember("@second:hs", "join")
        let raise = try scene.event(
            "m.room.power_levels", by: "@second:hs", stateKey: "", levels(version) { $0["users"]?[Scene.mod] = largest }
        )
        #expect(scene.refusal(raise) == (version == .v12 ? nil : .requiredPowerLevel))
        scene.room.add(raise)
        for creator in [Scene.creator, "@second:hs"] {
            #expect((scene.refusal(try scene.member(creator, "ban", by: Scene.mod)) == nil) == (version != .v12))
        }
        // Nor can one creator remove the other.
        #expect((scene.refusal(try scene.member("@second:hs", "leave", by: Scene.creator)) == nil) == (version != .v12))
    }

    @Test("A13 thousands of entries are compared in time", .timeLimit(.minutes(1)))
    func manyUsers() throws {
        var users = JSONObject()
        for number in 0..<3_500 { users["@\(number):h"] = 1 }
        var scene = try Scene(.v11, powerLevels: ["users": .object(users)])
        let event = try scene.event("m.room.power_levels", by: Scene.creator, stateKey: "", ["users": .object(users)])
        // The creator is not named, and so has no power.
        #expect(scene.refusal(event) == .requiredPowerLevel)
        users[Scene.creator] = 100
        var empowered = try Scene(.v11, powerLevels: ["users": .object(users)])
        users["@7:h"] = 2
        let change = try empowered.event(
            "m.room.power_levels", by: Scene.creator, stateKey: "", ["users": .object(users)])
        #expect(empowered.refusal(change) == nil)
    }

    @Test("the defaults of the text", arguments: RoomVersion.all)
    func defaults(version: RoomVersion) throws {
        let scene = try Scene(version)
        let create = scene.room.events[0]
        for event in [nil, scene.room.state[.powerLevels]] {
            let levels = PowerLevels(event: event, create: create)
            #expect(
                [levels.ban, levels.kick, levels.redact, levels.stateDefault, levels.roomNotification] == [
                    50, 50, 50, 50, 50,
                ])
            #expect([levels.invite, levels.eventsDefault, levels.usersDefault] == [0, 0, 0])
        }
        let none = PowerLevels(event: nil, create: create)
        #expect(none.level(of: UserID(unchecked: Scene.creator)) == (version == .v12 ? .infinite : .finite(100)))
        #expect(none.level(of: UserID(unchecked: Scene.mod)) == .finite(0))
    }
}

/// What other parts of a server ask power levels for.
@Suite("Power levels") struct PowerLevelTests {
    @Test("who may send what, and notify whom")
    func questions() throws {
        let scene = try Scene(.v11, powerLevels: ["events": ["a": 51], "notifications": ["room": 20, "x": 60]])
        let levels = PowerLevels(event: scene.room.state[.powerLevels], create: scene.room.events[0])
        let mod = UserID(unchecked: Scene.mod)
        #expect(!levels.allows(mod, toSend: "a", isState: false))
        #expect(levels.allows(mod, toSend: "b", isState: true))
        #expect(levels.roomNotification == 20)
        #expect(levels.notification("x") == 60)
        #expect(levels.notification("y") == 50)
        #expect(PowerLevel.finite(.max) < .infinite)
        #expect("\(levels.level(of: mod)) \(PowerLevel.infinite)" == "50 infinite")
    }
}
