import Homeserver
import MatrixCore
import RoostTestSupport
import Synchronization
import Testing

@testable import Database

/// The events that a server under attack has signed.
private final class SignedEvents: Sendable {
    /// The lock protects the list.
    private let events = Mutex<[JSONView]>([])

    func add(_ event: JSONView) { events.withLock { $0.append(event) } }
    var all: [JSONView] { events.withLock { $0 } }
}

@Suite("What hostile servers answer")
struct HostileAnswerTests {
    private let evilName = ServerName(unchecked: "evil.example")

    /// A room that exists only in a hostile server's tale.
    private struct Tale {
        let evil: HostileServer
        let version = RoomVersion.v11
        let roomID = RoomID(unchecked: "!tale:evil.example")
        let mallory: UserID
        var state: [Event] = []

        init(_ evil: HostileServer) throws {
            self.evil = evil
            mallory = evil.user("mallory")
            let create = try event("m.room.create", "", ["room_version": "11"], [], [])
            let join = try event("m.room.member", mallory.string, ["membership": "join"], [create], [create])
            let levels = try event(
                "m.room.power_levels", "", ["users": [mallory.string: 100]], [join], [create, join])
            let rules = try event("m.room.join_rules", "", ["join_rule": "public"], [levels], [create, join, levels])
            state = [create, join, levels, rules]
        }

        func event(
            _ type: String, _ stateKey: String, _ content: JSON, _ previous: [Event], _ auth: [Event],
            by user: UserID? = nil, key: SigningKey? = nil, as server: ServerName? = nil, in room: RoomID? = nil
        ) throws -> Event {
            try EventTemplate(
                version: version, roomID: room ?? roomID, sender: user ?? mallory, type: type, stateKey: stateKey,
                content: content, prevEvents: previous.map(\.eventID), authEvents: auth.map(\.eventID),
                depth: Int64(previous.count + 1), originServerTS: 1_700_000_000_000
            ).signed(by: key ?? evil.key, as: server ?? evil.name)
        }

        func template(of user: UserID, _ change: (inout JSON) -> Void = { _ in }) -> JSON {
            var event: JSON = [
                "type": "m.room.member", "room_id": .string(roomID.string), "sender": .string(user.string),
                "state_key": .string(user.string), "content": ["membership": "join"], "depth": 5,
                "origin_server_ts": 1_700_000_000_000,
                "prev_events": [.string(state.last!.eventID.string)],
                "auth_events": .array([0, 2, 3].map { .string(state[$0].eventID.string) }),
            ]
            change(&event)
            return ["room_version": "11", "event": event]
        }

        /// Answers joins, with what the test makes of the template and of the state.
        func answer(
            on network: TestNetwork, user: UserID, template: JSON? = nil, state: [JSON]? = nil, chain: [JSON] = [],
            signed: SignedEvents? = nil
        ) {
            let proposal = (template ?? self.template(of: user)).encoded()
            let all: JSON = [
                "state": .array(state ?? self.state.map(\.root.json)), "auth_chain": .array(chain),
                "origin": .string(evil.name.string), "event": [:], "members_omitted": false, "servers_in_room": [],
            ]
            let answer = all.encoded()
            let own = evil.name
            network.forge { request in
                guard request.destination == own else { return nil }
                if request.target.contains("/make_join/") { return ServerResponse(status: 200, body: proposal) }
                if request.target.contains("/send_join/") {
                    if let body = request.body, let view = (try? JSONDocument(parsing: body))?.root {
                        signed?.add(view)
                    }
                    return ServerResponse(status: 200, body: answer)
                }
                return nil
            }
        }
    }

    private func scene() async throws -> (FederationScene, Requester, Tale) {
        let scene = try await FederationScene(1)
        let bob = try await scene[0].user("bob")
        let evil = HostileServer("evil.example", on: scene.network, clock: scene[0].clock)
        return (scene, bob, try Tale(evil))
    }

    private func join(_ scene: FederationScene, _ bob: Requester, _ tale: Tale) async throws {
        try await scene[0].homeserver.memberships.join(tale.roomID, reason: nil, via: [evilName], by: bob)
    }

    @Test("a tale that holds together is a room")
    func honest() async throws {
        let (scene, bob, tale) = try await scene()
        tale.answer(on: scene.network, user: bob.userID)
        try await join(scene, bob, tale)
        #expect(try await scene[0].homeserver.reading.joinedRooms(of: bob).contains(tale.roomID))
        await scene.close()
    }

    @Test(
        "A07 nothing is signed but the event that was asked for",
        arguments: [
            ("type", JSON.string("m.room.power_levels")), ("sender", "@victim:hs1.example"),
            ("state_key", "@victim:hs1.example"), ("room_id", "!other:hs1.example"),
            ("content", ["membership": "ban"]), ("content", ["membership": "leave"]), ("type", "m.room.message"),
        ] as [(String, JSON)])
    func oracle(field: String, value: JSON) async throws {
        let (scene, bob, tale) = try await scene()
        let signed = SignedEvents()
        tale.answer(
            on: scene.network, user: bob.userID, template: tale.template(of: bob.userID) { $0[field] = value },
            signed: signed)
        await #expect(throws: MatrixError.self) { try await join(scene, bob, tale) }
        #expect(signed.all.isEmpty)
        await scene.close()
    }

    @Test("A07 whatever else a template holds, this server says what its user says")
    func oracleContent() async throws {
        let (scene, bob, tale) = try await scene()
        let signed = SignedEvents()
        tale.answer(
            on: scene.network, user: bob.userID,
            template: tale.template(of: bob.userID) { event in
                event["content"] = ["membership": "join", "displayname": "forged", "reason": "forged"]
                event["redacts"] = "$forged"
                event["unsigned"] = ["forged": true]
                event["forged"] = true
            }, signed: signed)
        try await join(scene, bob, tale)
        let event = try #require(signed.all.first)
        #expect(!String(decoding: event.raw, as: UTF8.self).contains("forged"))
        await scene.close()
    }

    @Test("A08 an answer without what the join rests on is no room, and the client is told whose fault it is")
    func unfounded() async throws {
        let (scene, bob, tale) = try await scene()
        // The join rules, by which the join is allowed, are named and not told.
        tale.answer(on: scene.network, user: bob.userID, state: tale.state.dropLast().map(\.root.json))
        do {
            try await join(scene, bob, tale)
            Issue.record("the join was taken up")
        } catch let error as MatrixError {
            #expect(error.status == 502)
            #expect(error.message.contains(evilName.string))
        }
        #expect(try await scene[0].homeserver.reading.joinedRooms(of: bob).isEmpty)
        await scene.close()
    }

    @Test("A08 an answer without a create event, or with that of another version, is no room")
    func noCreate() async throws {
        for change in 0..<2 {
            let (scene, bob, tale) = try await scene()
            var state = tale.state.map(\.root.json)
            if change == 0 {
                state.removeFirst()
            } else {
                let other = try tale.event("m.room.create", "", ["room_version": "10"], [], [])
                state[0] = other.root.json
            }
            tale.answer(on: scene.network, user: bob.userID, state: state)
            await #expect(throws: MatrixError.self) { try await join(scene, bob, tale) }
            #expect(try await scene[0].homeserver.reading.joinedRooms(of: bob).isEmpty)
            await scene.close()
        }
    }

    @Test("A08 what is foreign, unsigned or not allowed in an answer is not taken up")
    func foreign() async throws {
        let (scene, bob, tale) = try await scene()
        let victim = UserID(unchecked: "@victim:third.example")
        let create = tale.state[0], levels = tale.state[2], rules = tale.state[3]
        // In the name of a server that never signed it; of another room; by somebody who may not.
        let forged = try tale.event(
            "m.room.member", victim.string, ["membership": "join"], [rules], [create, levels, rules], by: victim)
        let other = try tale.event(
            "m.room.topic", "", ["topic": "of another room"], [rules], [create],
            in: RoomID(unchecked: "!else:evil.example"))
        let guest = UserID(unchecked: "@guest:evil.example")
        let usurped = try tale.event("m.room.name", "", ["name": "usurped"], [rules], [create, levels], by: guest)
        tale.answer(
            on: scene.network, user: bob.userID,
            state: (tale.state + [forged, other, usurped]).map(\.root.json) + ["nonsense", ["type": 5]])
        try await join(scene, bob, tale)
        let state = try await scene[0].homeserver.reading.state(of: tale.roomID, for: bob)
        let text = String(decoding: state, as: UTF8.self)
        #expect(!text.contains("victim") && !text.contains("of another room") && !text.contains("usurped"))
        for event in [forged, other] { #expect(try await scene[0].homeserver.database.event(event.eventID) == nil) }
        await scene.close()
    }

    @Test("A09 a key that a document doesn't prove, or that is out of its time, signs nothing")
    func keys() async throws {
        let (scene, bob, tale) = try await scene()
        // The document of another server, under this one's name.
        let name = ServerName(unchecked: "poisoned.example")
        let key = SigningKey(seed: [UInt8](repeating: 3, count: 32), version: "a")!
        let other = SigningKey(seed: [UInt8](repeating: 4, count: 32), version: "a")!
        var document = try ServerKeyDocument.make(for: name, validUntil: 2_000_000_000_000, key: key, old: [])
        document["verify_keys"] = ["ed25519:a": ["key": .string(Base64.encode(other.publicKey))]]
        let poisoned = document.encoded()
        scene.network.forge { request in
            request.destination == name && request.target.hasPrefix("/_matrix/key/")
                ? ServerResponse(status: 200, body: poisoned) : nil
        }
        let headers = RequestSignature(
            signing: "GET", target: "/_matrix/federation/v1/publicRooms", content: nil, from: name,
            to: scene[0].configuration.serverName, with: other
        ).header
        await #expect(throws: MatrixError.self) {
            try await scene[0].homeserver.federation.authenticate(
                [headers], method: "GET", target: "/_matrix/federation/v1/publicRooms", content: nil, mayAsk: {})
        }
        // An event from after a key was given up.
        let old = SigningKey(seed: [UInt8](repeating: 5, count: 32), version: "old")!
        let past = ServerName(unchecked: "past.example")
        let expired = try ServerKeyDocument.make(
            for: past, validUntil: 2_000_000_000_000, key: key,
            old: [("ed25519:old", old.publicKey, 1_600_000_000_000)]
        ).encoded()
        scene.network.forge { request in
            request.destination == past && request.target.hasPrefix("/_matrix/key/")
                ? ServerResponse(status: 200, body: expired) : nil
        }
        let user = UserID(unchecked: "@user:past.example")
        let late = try tale.event(
            "m.room.member", user.string, ["membership": "join"], [tale.state[3]],
            [tale.state[0], tale.state[2], tale.state[3]], by: user, key: old, as: past)
        tale.answer(on: scene.network, user: bob.userID, state: (tale.state + [late]).map(\.root.json))
        try await join(scene, bob, tale)
        #expect(try await scene[0].homeserver.database.event(late.eventID) == nil)
        await scene.close()
    }

    @Test("of several servers by which to join, one that fails is followed by the next")
    func candidates() async throws {
        let scene = try await FederationScene(2)
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let room = try await scene[0].room(of: alice)
        let evil = HostileServer("evil.example", on: scene.network, clock: scene[1].clock)
        let tale = try Tale(evil)
        tale.answer(on: scene.network, user: bob.userID)
        try await scene[1].homeserver.memberships.join(
            room, reason: nil,
            via: [ServerName(unchecked: "gone.example"), evil.name, ServerName(unchecked: "hs1.example")],
            by: bob)
        #expect(try await scene[1].homeserver.reading.joinedRooms(of: bob) == [room])
        await scene.close()
    }

    @Test("an invitation can be turned down when its server is gone, and by whom it was taken back is told")
    func rejected() async throws {
        let scene = try await FederationScene(2)
        let alice = try await scene[0].user("alice")
        let bob = try await scene[1].user("bob")
        let room = try await scene[0].room(of: alice) { $0.preset = .privateChat }
        try await scene[0].homeserver.memberships.invite(bob.userID, to: room, reason: nil, by: alice)
        let invited = try await scene[1].sync(bob)
        #expect(invited["rooms"]?["invite"]?[room.string] != nil)
        #expect(try await ConsistencyCheck(scene[1].homeserver.database).run().problems == [])
        scene.network.cut(scene[0].configuration.serverName)
        try await scene[1].homeserver.memberships.leave(room, reason: nil, by: bob)
        let after = try await scene[1].sync(bob, since: invited["next_batch"]?.string)
        #expect(after["rooms"]?["invite"]?[room.string] == nil)
        // The user's other clients are told that it is over.
        #expect(after["rooms"]?["leave"]?[room.string]?["timeline"]?["events"]?.count == 1)
        #expect(try await scene[1].sync(bob)["rooms"]?["invite"]?[room.string] == nil)
        #expect(try await ConsistencyCheck(scene[1].homeserver.database).run().problems == [])
        await scene.close()
    }
}
