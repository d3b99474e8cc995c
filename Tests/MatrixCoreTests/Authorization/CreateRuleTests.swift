import Testing

@testable import MatrixCore

/// Room Versions, Authorisation rules, 1: `m.room.create`.
@Suite("Rule 1: create events") struct CreateRuleTests {
    func create(_ version: RoomVersion, sender: String = "@creator:hs", _ change: (inout JSON) -> Void) throws -> Event
    {
        let room = RoomBuilder(version)
        var json: JSON = [
            "type": "m.room.create", "sender": .string(sender), "state_key": "", "depth": 1, "origin_server_ts": 1,
            "prev_events": [], "auth_events": [], "hashes": ["sha256": "x"], "signatures": [:],
            "content": room.createContent(creator: sender),
        ]
        if version.rules.roomIDs == .withDomain { json["room_id"] = "!room:hs" }
        if version.rules.eventIDs == .assigned { json["event_id"] = "$1:hs" }
        change(&json)
        return try Event(receiving: json.encoded(), version: version)
    }

    func refusal(_ event: Event) -> AuthorizationError.Rule? {
        do {
            try Authorization.check(event) { _ in nil }
            return nil
        } catch { return error.rule }
    }

    @Test("a create event of its version is allowed", arguments: RoomVersion.all)
    func allowed(version: RoomVersion) throws {
        #expect(refusal(try create(version) { _ in }) == nil)
    }

    @Test("1.1 a create event with previous events is refused", arguments: RoomVersion.all)
    func previousEvents(version: RoomVersion) throws {
        let event = try create(version) { json in
            switch version.rules.eventIDs {
            case .assigned: json["prev_events"] = [["$0:hs", [:]]]
            case .referenceHash: json["prev_events"] = [.string("$" + String(repeating: "A", count: 43))]
            }
        }
        #expect(refusal(event) == .createHasPreviousEvents)
    }

    @Test("1.2 the room ID has to be of the sender's server", arguments: RoomVersion.from(1, to: 11))
    func roomIDOfAnotherServer(version: RoomVersion) throws {
        #expect(refusal(try create(version) { $0["room_id"] = "!room:elsewhere" }) == .createRoomID)
    }

    @Test("A02 1.2 from version 12 on a create event carries no room ID, not even a right-looking one")
    func roomIDGiven() throws {
        #expect(refusal(try create(.v12) { $0["room_id"] = "!room:hs" }) == .createRoomID)
        let hash = try create(.v12) { _ in }.roomID.string
        #expect(refusal(try create(.v12) { $0["room_id"] = .string(hash) }) == .createRoomID)
    }

    @Test("A02 the room ID of version 12 follows from the create event: no two events share one")
    func derivedRoomID() throws {
        let one = try create(.v12) { _ in }
        let other = try create(.v12) { $0["origin_server_ts"] = 2 }
        #expect(one.roomID.string == "!" + one.eventID.string.dropFirst())
        #expect(one.roomID != other.roomID)
    }

    @Test("1.3 an unknown room version is refused", arguments: RoomVersion.all)
    func unknownVersion(version: RoomVersion) throws {
        for value in ["13", "org.example", 1, nil, [], ""] as [JSON] {
            #expect(refusal(try create(version) { $0["content"]?["room_version"] = value }) == .createRoomVersion)
        }
    }

    @Test("A12 a create event that is judged by another version than its own is refused", arguments: RoomVersion.all)
    func otherVersion(version: RoomVersion) throws {
        let named: JSON = version == .v5 ? "6" : "5"
        #expect(refusal(try create(version) { $0["content"]?["room_version"] = named }) == .createRoomVersion)
    }

    @Test("1.3 a create event without a room version is one of version 1", arguments: RoomVersion.all)
    func noVersion(version: RoomVersion) throws {
        let event = try create(version) { $0["content"] = ["creator": "@creator:hs"] }
        #expect((refusal(event) == nil) == (version == .v1))
    }

    @Test("1.4 up to version 10 the creator has to be named", arguments: RoomVersion.all)
    func creator(version: RoomVersion) throws {
        let event = try create(version) { $0["content"] = ["room_version": .string(version.identifier)] }
        #expect(refusal(event) == (version.number <= 10 ? .createWithoutCreator : nil))
    }

    @Test(
        "1.4 from version 12 on additional creators have to be a list of user IDs",
        arguments: [
            ("@a:b", false), ([], true), (["@a:b", "@c:d"], true), (["@a:b", 5], false), (["a:b"], false),
            (["@a"], false), ([[]], false),
            (nil, false), ([:], false), (["@:b"], true), (["@a:b c"], false),
        ] as [(JSON, Bool)])
    func additionalCreators(value: JSON, isAllowed: Bool) throws {
        #expect(
            refusal(try create(.v12) { $0["content"]?["additional_creators"] = value })
                == (isAllowed ? nil : .additionalCreators))
        // Before, it means nothing.
        #expect(refusal(try create(.v11) { $0["content"]?["additional_creators"] = value }) == nil)
    }
}

/// Room Versions, Authorisation rules, 2 (3 in version 12): the `auth_events`.
@Suite("Rule 2: auth events") struct AuthEventRuleTests {
    func refusal(_ event: Event, _ auth: [Event], rejected: Event? = nil) -> AuthorizationError.Rule? {
        do {
            try Authorization.checkAuthEvents(event, authEvents: auth, isRejected: { $0 == rejected?.eventID })
            return nil
        } catch { return error.rule }
    }

    func selected(_ scene: Scene, _ event: Event) -> [Event] {
        Authorization.requiredStateKeys(for: event).compactMap { scene.room.state[$0] }
    }

    @Test(
        "the selected auth events are accepted, with or without those that may be missing", arguments: RoomVersion.all)
    func accepted(version: RoomVersion) throws {
        var scene = try Scene(version)
        let event = try scene.event("m.room.message", by: Scene.user)
        let auth = selected(scene, event)
        #expect(refusal(event, auth) == nil)
        #expect(refusal(event, auth.filter { $0.type != "m.room.power_levels" }) == nil)
    }

    @Test("the selection is the one of the text", arguments: RoomVersion.all)
    func selection(version: RoomVersion) throws {
        var scene = try Scene(version)
        let create: Set<StateKey> = version.number < 12 ? [StateKey("m.room.create")] : []
        let base = create.union([StateKey("m.room.power_levels")])
        func member(_ user: String) -> StateKey { StateKey("m.room.member", user) }
        func keys(_ event: Event) -> Set<StateKey> { Set(Authorization.requiredStateKeys(for: event)) }

        #expect(keys(try scene.event("m.room.message", by: Scene.user)) == base.union([member(Scene.user)]))
        let rules = StateKey("m.room.join_rules")
        for (membership, needsRules) in [
            ("join", true), ("invite", true), ("knock", true), ("leave", false), ("ban", false),
        ] {
            let expected = base.union([member(Scene.mod), member(Scene.user)]).union(needsRules ? [rules] : [])
            #expect(keys(try scene.member(Scene.user, membership, by: Scene.mod)) == expected)
        }
        let restricted = try scene.member(Scene.user, "join", ["join_authorised_via_users_server": .string(Scene.mod)])
        #expect(
            keys(restricted)
                == base.union([member(Scene.user), rules]).union(version.number >= 8 ? [member(Scene.mod)] : []))
        let thirdParty = try scene.member(
            Scene.user, "invite", by: Scene.mod, ["third_party_invite": ["signed": ["token": "abc"]]])
        #expect(
            keys(thirdParty)
                == base.union([
                    member(Scene.user), member(Scene.mod), rules, StateKey("m.room.third_party_invite", "abc"),
                ]))
        #expect(keys(try #require(scene.room.events.first)).isEmpty)
    }

    @Test("2.1 two events for one key are refused", arguments: RoomVersion.all)
    func duplicates(version: RoomVersion) throws {
        var scene = try Scene(version)
        let event = try scene.event("m.room.message", by: Scene.user)
        var auth = selected(scene, event)
        auth.append(try scene.event("m.room.power_levels", by: Scene.creator, stateKey: ""))
        #expect(refusal(event, auth) == .duplicateAuthEvents)
    }

    @Test("A02 2.1 two create events among the auth events are refused", arguments: RoomVersion.from(1, to: 11))
    func twoCreateEvents(version: RoomVersion) throws {
        var scene = try Scene(version)
        let event = try scene.event("m.room.message", by: Scene.user)
        let second = try scene.event(
            "m.room.create", by: Scene.creator, stateKey: "", scene.room.createContent(creator: Scene.creator))
        #expect(refusal(event, selected(scene, event) + [second]) == .duplicateAuthEvents)
    }

    @Test("2.2 an event that the selection does not name is refused", arguments: RoomVersion.all)
    func unexpected(version: RoomVersion) throws {
        var scene = try Scene(version)
        let event = try scene.event("m.room.message", by: Scene.user)
        let auth = selected(scene, event)
        for key in [StateKey("m.room.member", Scene.mod), StateKey("m.room.join_rules")] {
            #expect(refusal(event, auth + [try #require(scene.room.state[key])]) == .unexpectedAuthEvent)
        }
        #expect(refusal(event, auth + [try scene.event("m.room.message", by: Scene.mod)]) == .unexpectedAuthEvent)
    }

    @Test("2.3 a rejected auth event is refused", arguments: RoomVersion.all)
    func rejected(version: RoomVersion) throws {
        var scene = try Scene(version)
        let event = try scene.event("m.room.message", by: Scene.user)
        let auth = selected(scene, event)
        #expect(refusal(event, auth, rejected: auth.last) == .rejectedAuthEvent)
    }

    @Test(
        "2.4 the create event has to be there up to version 11 and must not from version 12 on",
        arguments: RoomVersion.all)
    func createEvent(version: RoomVersion) throws {
        var scene = try Scene(version)
        let event = try scene.event("m.room.message", by: Scene.user)
        let auth = selected(scene, event).filter { $0.type != "m.room.create" }
        let create = try #require(scene.room.events.first)
        #expect(refusal(event, auth) == (version.number <= 11 ? .noCreateEvent : nil))
        #expect(refusal(event, auth + [create]) == (version.number <= 11 ? nil : .unexpectedAuthEvent))
    }

    @Test("A03 2.5 an auth event of another room is refused", arguments: RoomVersion.all)
    func otherRoom(version: RoomVersion) throws {
        var scene = try Scene(version)
        var elsewhere = RoomBuilder(version)
        elsewhere.roomID = version.rules.roomIDs == .withDomain ? RoomID(unchecked: "!else:hs") : nil
        try elsewhere.add(
            "m.room.create", sender: Scene.user, stateKey: "", content: elsewhere.createContent(creator: Scene.user))
        let membership = try elsewhere.addMember(Scene.user, "join")
        let event = try scene.event("m.room.message", by: Scene.user)
        let auth = selected(scene, event).filter { $0.type != "m.room.member" }
        #expect(refusal(event, auth + [membership]) == .authEventOfAnotherRoom)
    }

    @Test("A02 a state whose create event is another room's allows nothing", arguments: RoomVersion.all)
    func otherCreate(version: RoomVersion) throws {
        var scene = try Scene(version)
        var elsewhere = RoomBuilder(version)
        elsewhere.roomID = version.rules.roomIDs == .withDomain ? RoomID(unchecked: "!else:hs") : nil
        let create = try elsewhere.add(
            "m.room.create", sender: Scene.user, stateKey: "",
            content: elsewhere.createContent(creator: Scene.user))
        let event = try scene.event("m.room.message", by: Scene.user)
        scene.room.replaceState(create)
        #expect(scene.refusal(event) == .roomIDIsNotTheCreateEvent)
        scene.room.removeState(.create)
        #expect(scene.refusal(event) == .noCreateEvent)
    }
}
