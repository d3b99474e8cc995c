import Testing

@testable import MatrixCore

/// Room Versions, Authorisation rules, 4 or 5: `m.room.member`, without invites by third parties.
@Suite("Rule 5: membership") struct MembershipRuleTests {
    @Test("a member event has a state key and a membership that is known", arguments: RoomVersion.all)
    func malformed(version: RoomVersion) throws {
        var scene = try Scene(version)
        #expect(
            scene.refusal(try scene.event("m.room.member", by: Scene.user, ["membership": "join"]))
                == .malformedMembership)
        #expect(
            scene.refusal(try scene.event("m.room.member", by: Scene.user, stateKey: Scene.user))
                == .malformedMembership)
        for value in ["Join", "kick", 1, nil, "jo\u{69}n\u{301}"] as [JSON] {
            let event = try scene.event("m.room.member", by: Scene.user, stateKey: Scene.user, ["membership": value])
            #expect(scene.refusal(event) == .unknownMembership)
        }
    }

    // Joins.

    @Test("the creator joins right after the create event whatever else holds", arguments: RoomVersion.all)
    func creatorJoins(version: RoomVersion) throws {
        var room = RoomBuilder(version)
        try room.add(
            "m.room.create", sender: Scene.creator, stateKey: "", content: room.createContent(creator: Scene.creator))
        let join: JSON = ["membership": "join"]
        let creator = try room.make("m.room.member", sender: Scene.creator, stateKey: Scene.creator, content: join)
        let other = try room.make("m.room.member", sender: Scene.user, stateKey: Scene.user, content: join)
        try room.check(creator)
        #expect(throws: AuthorizationError.self) { try room.check(other) }
        // Once other events have come, the creator needs an invite as well.
        room.add(creator)
        try room.addMember(Scene.creator, "leave")
        let again = try room.make("m.room.member", sender: Scene.creator, stateKey: Scene.creator, content: join)
        #expect(throws: AuthorizationError.self) { try room.check(again) }
    }

    @Test(
        "A04 up to version 10 the creator is who the content names, from 11 on who sent the event",
        arguments: RoomVersion.all)
    func whoIsTheCreator(version: RoomVersion) throws {
        var room = RoomBuilder(version)
        let content: JSON = ["room_version": .string(version.identifier), "creator": "@named:hs"]
        try room.add("m.room.create", sender: "@sender:hs", stateKey: "", content: content)
        for (user, isCreator) in [("@named:hs", version.number <= 10), ("@sender:hs", version.number > 10)] {
            let join = try room.make(
                "m.room.member", sender: user, stateKey: user, content: ["membership": "join"])
            let isAllowed = (try? room.check(join)) != nil
            #expect(isAllowed == isCreator)
        }
    }

    @Test("nobody joins for another", arguments: RoomVersion.all)
    func joinForAnother(version: RoomVersion) throws {
        var scene = try Scene(version)
        #expect(scene.refusal(try scene.member(Scene.stranger, "join", by: Scene.creator)) == .join)
    }

    @Test("who is banned cannot join, whatever the join rule", arguments: RoomVersion.all)
    func bannedJoin(version: RoomVersion) throws {
        for rule in ["public", "invite", "knock", "restricted", "knock_restricted"] as [JSON] {
            var scene = try Scene(version, joinRule: rule)
            try scene.room.addMember(Scene.stranger, "ban", by: Scene.creator)
            #expect(scene.refusal(try scene.member(Scene.stranger, "join")) == .join)
        }
    }

    /// What the text says for each join rule: from which version on the rule is known.
    static let joinRules: [(rule: JSON?, first: Int)] = [
        ("public", 1), ("invite", 1), (nil, 1), ("knock", 7), ("restricted", 8), ("knock_restricted", 10),
    ]

    @Test("join rules by version and membership", arguments: RoomVersion.all)
    func joinRule(version: RoomVersion) throws {
        for (rule, first) in Self.joinRules {
            let isKnown = version.number >= first
            for membership in [nil, "leave", "invite", "join", "knock"] {
                var scene = try Scene(version, joinRule: rule)
                if rule == nil { scene.room.removeState(.joinRules) }
                if let membership { try scene.room.addMember(Scene.stranger, membership, by: Scene.creator) }
                let isAllowed = isKnown && (rule == "public" || membership == "invite" || membership == "join")
                #expect(
                    (scene.refusal(try scene.member(Scene.stranger, "join")) == nil) == isAllowed,
                    "rule \(String(describing: rule)), membership \(membership ?? "none")")
            }
        }
    }

    @Test("a join rule that is no string or not known lets nobody in", arguments: RoomVersion.all)
    func unknownJoinRule(version: RoomVersion) throws {
        for rule in [5, nil, "private", "Public", [:]] as [JSON] {
            var scene = try Scene(version, joinRule: rule)
            try scene.room.addMember(Scene.stranger, "invite", by: Scene.creator)
            #expect(scene.refusal(try scene.member(Scene.stranger, "join")) == .join)
        }
    }

    @Test("a restricted join needs a joined member who may invite", arguments: RoomVersion.from(8))
    func restricted(version: RoomVersion) throws {
        for rule in version.number >= 10 ? ["restricted", "knock_restricted"] : ["restricted"] as [JSON] {
            var scene = try Scene(version, powerLevels: ["invite": 50], joinRule: rule)
            func join(via user: JSON?) throws -> AuthorizationError.Rule? {
                var more: JSON = [:]
                more["join_authorised_via_users_server"] = user
                return scene.refusal(try scene.member(Scene.stranger, "join", more))
            }
            #expect(try join(via: .string(Scene.mod)) == nil)
            #expect(try join(via: .string(Scene.creator)) == nil)
            #expect(try join(via: .string(Scene.user)) == .join)
            #expect(try join(via: "@nobody:hs") == .join)
            #expect(try join(via: nil) == .join)
            #expect(try join(via: 5) == .notSignedByAuthorisingServer)
            #expect(try join(via: "mod") == .notSignedByAuthorisingServer)
            #expect(try join(via: "@far:away") == .notSignedByAuthorisingServer)
        }
    }

    @Test(
        "a signature of the authorising server is asked for from version 8 on, for every membership",
        arguments: RoomVersion.all)
    func authorisingSignature(version: RoomVersion) throws {
        var scene = try Scene(version)
        for membership in ["join", "leave"] {
            let event = try scene.member(
                Scene.user, membership, ["join_authorised_via_users_server": .string(Scene.far)])
            #expect(scene.refusal(event) == (version.number >= 8 ? .notSignedByAuthorisingServer : nil))
            #expect(event.requiredSigners.map(\.string) == (version.number >= 8 ? ["hs", "away"] : ["hs"]))
            let signed = try event.addingSignature(by: scene.room.key, as: ServerName(unchecked: "away"))
            #expect(signed.eventID == event.eventID)
            #expect(scene.refusal(signed) == nil)
        }
    }

    // Invites.

    @Test("inviting: who may, and whom", arguments: RoomVersion.all)
    func invites(version: RoomVersion) throws {
        var scene = try Scene(version, powerLevels: ["invite": 50])
        #expect(scene.refusal(try scene.member(Scene.stranger, "invite", by: Scene.mod)) == nil)
        #expect(scene.refusal(try scene.member(Scene.stranger, "invite", by: Scene.user)) == .invite)
        #expect(scene.refusal(try scene.member("@a:hs", "invite", by: Scene.stranger)) == .invite)
        #expect(scene.refusal(try scene.member(Scene.user, "invite", by: Scene.mod)) == .invite)
        try scene.room.addMember(Scene.stranger, "ban", by: Scene.creator)
        #expect(scene.refusal(try scene.member(Scene.stranger, "invite", by: Scene.creator)) == .invite)
        try scene.room.addMember(Scene.stranger, "leave", by: Scene.creator)
        #expect(scene.refusal(try scene.member(Scene.stranger, "invite", by: Scene.creator)) == nil)
    }

    @Test("without an invite level everyone may invite", arguments: RoomVersion.all)
    func inviteDefault(version: RoomVersion) throws {
        var scene = try Scene(version)
        #expect(scene.refusal(try scene.member(Scene.stranger, "invite", by: Scene.user)) == nil)
    }

    // Leaving and being removed.

    @Test("leaving: from invited, joined, and from version 7 on from knocking", arguments: RoomVersion.all)
    func leaves(version: RoomVersion) throws {
        for (membership, isAllowed) in [
            ("invite", true), ("join", true), ("knock", version.number >= 7), ("leave", false), ("ban", false),
        ] {
            var scene = try Scene(version)
            try scene.room.addMember(Scene.stranger, membership, by: Scene.creator)
            #expect((scene.refusal(try scene.member(Scene.stranger, "leave")) == nil) == isAllowed, "\(membership)")
        }
        var scene = try Scene(version)
        #expect(scene.refusal(try scene.member(Scene.stranger, "leave")) == .leave)
    }

    @Test("removing others needs the kick level and more power than they have", arguments: RoomVersion.all)
    func kicks(version: RoomVersion) throws {
        var scene = try Scene(version)
        #expect(scene.refusal(try scene.member(Scene.user, "leave", by: Scene.mod)) == nil)
        #expect(scene.refusal(try scene.member(Scene.mod, "leave", by: Scene.user)) == .leave)
        #expect(scene.refusal(try scene.member(Scene.far, "leave", by: Scene.user)) == .leave)
        #expect(scene.refusal(try scene.member(Scene.creator, "leave", by: Scene.mod)) == .leave)
        #expect(scene.refusal(try scene.member(Scene.user, "leave", by: Scene.stranger)) == .leave)
        var strict = try Scene(version, powerLevels: ["kick": 51])
        #expect(strict.refusal(try strict.member(Scene.user, "leave", by: Scene.mod)) == .leave)
    }

    @Test("lifting a ban needs the ban level and the kick level", arguments: RoomVersion.all)
    func unbans(version: RoomVersion) throws {
        for (ban, kick, isAllowed) in [(50, 50, true), (51, 50, false), (50, 51, false)] as [(JSON, JSON, Bool)] {
            var scene = try Scene(version, powerLevels: ["ban": ban, "kick": kick])
            try scene.room.addMember(Scene.stranger, "ban", by: Scene.creator)
            #expect((scene.refusal(try scene.member(Scene.stranger, "leave", by: Scene.mod)) == nil) == isAllowed)
        }
    }

    @Test("banning needs the ban level and more power than the other has", arguments: RoomVersion.all)
    func bans(version: RoomVersion) throws {
        var scene = try Scene(version)
        #expect(scene.refusal(try scene.member(Scene.user, "ban", by: Scene.mod)) == nil)
        #expect(scene.refusal(try scene.member(Scene.stranger, "ban", by: Scene.mod)) == nil)
        #expect(scene.refusal(try scene.member(Scene.creator, "ban", by: Scene.mod)) == .ban)
        #expect(scene.refusal(try scene.member(Scene.mod, "ban", by: Scene.mod)) == .ban)
        #expect(scene.refusal(try scene.member(Scene.stranger, "ban", by: Scene.user)) == .ban)
        #expect(scene.refusal(try scene.member(Scene.user, "ban", by: Scene.stranger)) == .ban)
        var strict = try Scene(version, powerLevels: ["ban": 51])
        #expect(strict.refusal(try strict.member(Scene.user, "ban", by: Scene.mod)) == .ban)
    }

    // Knocks.

    @Test("knocking: by version, join rule and membership", arguments: RoomVersion.all)
    func knocks(version: RoomVersion) throws {
        for (rule, first) in [
            ("knock", 7), ("knock_restricted", 10), ("public", 99), ("invite", 99), ("restricted", 99),
        ] {
            for (membership, isPossible) in [
                ("leave", true), ("knock", true), ("ban", false), ("invite", false), ("join", false),
            ] {
                var scene = try Scene(version, joinRule: .string(rule))
                try scene.room.addMember(Scene.stranger, membership, by: Scene.creator)
                let expected: AuthorizationError.Rule? =
                    version.number < 7 ? .unknownMembership : version.number >= first && isPossible ? nil : .knock
                #expect(scene.refusal(try scene.member(Scene.stranger, "knock")) == expected, "\(rule), \(membership)")
            }
        }
        var scene = try Scene(version, joinRule: "knock")
        let expected: AuthorizationError.Rule = version.number < 7 ? .unknownMembership : .knock
        #expect(scene.refusal(try scene.member(Scene.stranger, "knock", by: Scene.user)) == expected)
    }
}

/// Room Versions, Authorisation rules, 5.4.1: invites of third parties.
@Suite("Rule 5.4.1: third-party invites") struct ThirdPartyInviteTests {
    struct Invite {
        var scene: Scene
        let identityKey: SigningKey
        var signed: JSON

        init(_ version: RoomVersion, publish: (String) -> JSON) throws {
            scene = try Scene(version)
            let key = try #require(SigningKey(seed: Array(repeating: 9, count: 32), version: "0"))
            identityKey = key
            try scene.room.add(
                "m.room.third_party_invite", sender: Scene.mod, stateKey: "tok",
                content: publish(Base64.encode(key.publicKey)))
            signed = try key.sign(["mxid": .string(Scene.stranger), "token": "tok"], as: ServerName(unchecked: "is"))
        }

        mutating func refusal(by sender: String = Scene.mod, _ change: (inout JSON) -> Void = { _ in }) throws
            -> AuthorizationError.Rule?
        {
            var content: JSON = [
                "membership": "invite", "third_party_invite": ["display_name": "x", "signed": signed],
            ]
            change(&content)
            return scene.refusal(
                try scene.event("m.room.member", by: sender, stateKey: Scene.stranger, content))
        }
    }

    @Test("a signed invite is allowed by any of the published keys, in either alphabet", arguments: RoomVersion.all)
    func allowed(version: RoomVersion) throws {
        let wrong: JSON = .string(Base64.encode([UInt8](repeating: 1, count: 32)))
        let publications: [(String) -> JSON] = [
            { ["public_key": .string($0)] },
            { ["public_keys": [["public_key": .string($0)]]] },
            { ["public_key": wrong, "public_keys": [["public_key": wrong], ["public_key": .string($0)]]] },
            { ["public_key": .string(Base64.encode(Base64.decode($0) ?? [], alphabet: .urlSafe))] },
        ]
        for publish in publications {
            var invite = try Invite(version, publish: publish)
            #expect(try invite.refusal() == nil)
        }
    }

    @Test("each condition of the rule refuses", arguments: RoomVersion.all)
    func refused(version: RoomVersion) throws {
        var invite = try Invite(version) { ["public_key": .string($0)] }
        #expect(try invite.refusal { $0["third_party_invite"] = ["display_name": "x"] } == .thirdPartyInvite)
        #expect(try invite.refusal { $0["third_party_invite"]?["signed"]?["mxid"] = nil } == .thirdPartyInvite)
        #expect(try invite.refusal { $0["third_party_invite"]?["signed"]?["token"] = nil } == .thirdPartyInvite)
        #expect(try invite.refusal { $0["third_party_invite"]?["signed"]?["mxid"] = "@other:hs" } == .thirdPartyInvite)
        #expect(try invite.refusal { $0["third_party_invite"]?["signed"]?["token"] = "other" } == .thirdPartyInvite)
        #expect(try invite.refusal { $0["third_party_invite"]?["signed"]?["more"] = 1 } == .thirdPartyInvite)
        #expect(try invite.refusal { $0["third_party_invite"]?["signed"]?["signatures"] = nil } == .thirdPartyInvite)
        #expect(try invite.refusal(by: Scene.creator) == .thirdPartyInvite)
        try invite.scene.room.addMember(Scene.stranger, "ban", by: Scene.creator)
        #expect(try invite.refusal() == .thirdPartyInvite)
        var otherKey = try Invite(version) { _ in
            ["public_key": .string(Base64.encode([UInt8](repeating: 1, count: 32)))]
        }
        #expect(try otherKey.refusal() == .thirdPartyInvite)
        var noKey = try Invite(version) { _ in [:] }
        #expect(try noKey.refusal() == .thirdPartyInvite)
    }

    @Test("A13 hundreds of signatures against hundreds of keys are given up on", .timeLimit(.minutes(1)))
    func flood() throws {
        let junk = JSON.string(Base64.encode([UInt8](repeating: 1, count: 32)))
        var invite = try Invite(.v11) { _ in ["public_keys": .array(Array(repeating: ["public_key": junk], count: 500))]
        }
        let refusal = try invite.refusal { content in
            var signatures: JSON = [:]
            let signature = JSON.string(Base64.encode([UInt8](repeating: 2, count: 64)))
            for number in 0..<400 { signatures["ed25519:\(number)"] = signature }
            content["third_party_invite"]?["signed"]?["signatures"] = ["is": signatures]
        }
        #expect(refusal == .thirdPartyInvite)
    }

    @Test("the server of the inviting user need not sign such an invite", arguments: RoomVersion.all)
    func signers(version: RoomVersion) throws {
        var invite = try Invite(version) { ["public_key": .string($0)] }
        let event = try invite.scene.event(
            "m.room.member", by: Scene.mod, stateKey: Scene.stranger,
            ["membership": "invite", "third_party_invite": ["signed": invite.signed]])
        #expect(event.requiredSigners.isEmpty == (version.number > 2))
    }
}
