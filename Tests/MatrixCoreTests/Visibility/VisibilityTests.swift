import Testing

@testable import MatrixCore

/// Client-Server API, `m.room.server_acl`.
@Suite("Server ACLs") struct ServerACLTests {
    func acl(_ content: JSON) throws -> ServerACL { ServerACL(content: try content.document().root) }

    @Test(
        "the rules in their order",
        arguments: [
            (["allow": ["*"]], "a.org", true), (["allow": []], "a.org", false), ([:], "a.org", false),
            (["allow": "*"], "a.org", false),
            (["allow": ["*"], "deny": ["evil.com"]], "evil.com", false),
            (["allow": ["*"], "deny": ["evil.com"]], "evil.com:8448", false),
            (["allow": ["*"], "deny": ["evil.com"]], "EVIL.com:1", false),
            (["allow": ["*"], "deny": ["evil.com"]], "not-evil.com", true),
            (["allow": ["*"], "deny": ["*.evil.com"]], "a.evil.com", false),
            (["allow": ["*"], "deny": ["*.evil.com"]], "evil.com", true),
            (["allow": ["*.org"]], "a.org:80", true), (["allow": ["?.org"]], "ab.org", false),
            (["allow": ["*"], "allow_ip_literals": false], "1.2.3.4", false),
            (["allow": ["*"], "allow_ip_literals": false], "1.2.3.4:80", false),
            (["allow": ["*"], "allow_ip_literals": false], "[::1]:80", false),
            (["allow": ["*"], "allow_ip_literals": false], "1.2.3.4.org", true),
            (["allow": ["*"], "allow_ip_literals": true], "1.2.3.4", true),
            (["allow": ["*"], "allow_ip_literals": "no"], "1.2.3.4", true),
            (["allow": ["*"]], "[::1]", true), (["allow": ["[::1]"]], "[::1]:8448", true),
            (["allow": [5, "a.org"], "deny": [nil]], "a.org", true),
        ] as [(JSON, String, Bool)])
    func rules(content: JSON, server: String, isAllowed: Bool) throws {
        #expect(try acl(content).allows(try #require(ServerName(server))) == isAllowed)
    }

    @Test("without an event everyone is allowed")
    func none() {
        #expect(ServerACL(event: nil).allows(ServerName(unchecked: "a.org")))
    }

    @Test("A14 an event full of hostile globs is answered in time", .timeLimit(.minutes(1)))
    func hostile() throws {
        let pattern = JSON.string(String(repeating: "*a", count: 125) + "*b")
        let acl = try acl(["allow": ["*"], "deny": .array(Array(repeating: pattern, count: 250))])
        let server = ServerName(unchecked: String(repeating: "a", count: 230))
        for _ in 0..<10 { #expect(acl.allows(server)) }
    }
}

/// Client-Server API, Room History Visibility, Server behaviour.
@Suite("History visibility") struct HistoryVisibilityTests {
    static let memberships: [Membership] = [.join, .invite, .leave, .ban, .knock]

    @Test("who may see an event, by visibility and membership at the event and joining later")
    func table() throws {
        var room = try RoomBuilder.room(.v11)
        let event = try room.add("m.room.message", sender: "@creator:hs")
        let user = UserID(unchecked: "@user:hs")
        for visibility in [HistoryVisibility.worldReadable, .shared, .invited, .joined] {
            for membership in Self.memberships {
                for joinedLater in [false, true] {
                    let expected =
                        visibility == .worldReadable || membership == .join || (visibility == .shared && joinedLater)
                        || (visibility == .invited && membership == .invite)
                    let allowed = HistoryVisibility.allows(
                        user, toSee: event, visibility: visibility, membership: membership, joinedLater: joinedLater)
                    #expect(allowed == expected, "\(visibility) \(membership) \(joinedLater)")
                }
            }
        }
    }

    @Test("a change of the visibility is seen from both sides")
    func visibilityChange() throws {
        var room = try RoomBuilder.room(.v11)
        let user = UserID(unchecked: "@user:hs")
        func allowed(from: HistoryVisibility, to: JSON) throws -> Bool {
            let event = try room.add(
                "m.room.history_visibility", sender: "@creator:hs", stateKey: "", content: ["history_visibility": to])
            return HistoryVisibility.allows(
                user, toSee: event, visibility: from, membership: .leave, joinedLater: false)
        }
        #expect(try allowed(from: .joined, to: "world_readable"))
        #expect(try allowed(from: .worldReadable, to: "joined"))
        #expect(try !allowed(from: .joined, to: "joined"))
        #expect(try !allowed(from: .joined, to: "nonsense"))
    }

    @Test("a user's own memberships are seen from both sides, other users' are not")
    func ownMembership() throws {
        var room = try RoomBuilder.room(.v11)
        let join = try room.addMember("@user:hs", "join")
        let leave = try room.addMember("@user:hs", "leave")
        func allowed(_ user: String, _ event: Event, _ before: Membership) -> Bool {
            HistoryVisibility.allows(
                UserID(unchecked: user), toSee: event, visibility: .joined, membership: before, joinedLater: false)
        }
        #expect(allowed("@user:hs", join, .leave))
        #expect(allowed("@user:hs", leave, .join))
        #expect(!allowed("@other:hs", join, .leave))
        #expect(!allowed("@user:hs", leave, .ban))
    }

    @Test(
        "what is not understood is shared",
        arguments: [
            ("world_readable", HistoryVisibility.worldReadable), ("invited", .invited), ("joined", .joined),
            ("shared", .shared),
            ("Joined", .shared), (5, .shared), (nil, .shared),
        ] as [(JSON, HistoryVisibility)])
    func parsing(value: JSON, visibility: HistoryVisibility) throws {
        let content: JSON = ["history_visibility": value]
        #expect(HistoryVisibility(content: try content.document().root) == visibility)
        #expect(HistoryVisibility(event: nil) == .shared)
    }
}
