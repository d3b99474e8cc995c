import Testing

@testable import MatrixCore

/// Appendices, Identifier Grammar.
@Suite("Identifiers") struct IdentifierTests {
    @Test(
        "server names that are valid",
        arguments: [
            "matrix.org", "matrix.org:8888", "1.2.3.4", "1.2.3.4:1234", "[1234:5678::abcd]", "[1234:5678::abcd]:5678",
            "localhost", "EXAMPLE.org", "a-b.c", "[::]", "[::1]", "[::ffff:1.2.3.4]", "[1:2:3:4:5:6:7:8]", "[1::8]",
            "[1:2:3:4:5:6:1.2.3.4]",
            "1.2.3", "1.2.3.4.5", "x:00001",
        ])
    func validServerNames(name: String) {
        #expect(ServerName(name)?.string == name)
    }

    @Test(
        "server names that are not",
        arguments: [
            "", ":80", "example.org:", "example.org:123456", "example.org:http", "exa mple.org", "example.org/",
            "exämple.org",
            "1.2.3.256", "1.2.3.0004", "[::1", "::1", "[1:2:3:4:5:6:7]", "[1:2:3:4:5:6:7:8:9]", "[1::2::3]", "[:::]",
            "[12345::]",
            "[g::]", "[::1]x", "[::1]:", "[1:2:3:4:5:6:7:1.2.3.4]", "[1.2.3.4::]", "[:1]", "[1:]", "a_b",
            "example.org:99999", "example\u{0}.org", "[\u{301}::1]", "[::1\u{600}]", "[::1]\u{301}",
        ])
    func invalidServerNames(name: String) {
        #expect(ServerName(name) == nil)
    }

    @Test("a server name knows its host, its port and whether it is an address")
    func serverNameParts() {
        #expect(ServerName("[::1]:8448")?.host == "[::1]")
        #expect(ServerName("[::1]:8448")?.port == 8448)
        #expect(ServerName("example.org")?.port == nil)
        #expect(ServerName("[::1]:8448")?.isIPLiteral == true)
        #expect(ServerName("1.2.3.4:80")?.isIPLiteral == true)
        #expect(ServerName("1.2.3.4.example.org")?.isIPLiteral == false)
    }

    @Test(
        "user IDs, historical ones included",
        arguments: [
            ("@alice:example.org", true), ("@:example.org", true), ("@Al ice\u{7}ü:example.org:8448", true),
            ("@a:[::1]", true), ("alice:example.org", false), ("@alice", false), ("@alice:", false),
            ("@a\u{0}:example.org", false),
            ("#alice:example.org", false), ("@a:exa mple", false), ("", false), ("@", false),
        ])
    func userIDs(text: String, isValid: Bool) {
        #expect((UserID(text) != nil) == isValid)
    }

    @Test("the parts of a user ID")
    func userIDParts() {
        let user = UserID("@alice:example.org:8448")
        #expect(user?.localpart == "alice")
        #expect(user?.server.string == "example.org:8448")
        #expect(user?.isCompliant == true)
        #expect(UserID("@:x")?.isCompliant == false)
        #expect(UserID("@a b:x")?.isCompliant == false)
    }

    @Test(
        "localparts for new users",
        arguments: [
            ("alice", true), ("a.b_c=d-e/f+0", true), ("", false), ("Alice", false), ("älice", false), ("a b", false),
            ("a:b", false),
            ("a!", false),
        ])
    func localparts(localpart: String, isValid: Bool) {
        #expect(UserID.isValidLocalpart(localpart) == isValid)
        #expect((UserID(localpart: localpart, server: ServerName(unchecked: "x")) != nil) == isValid)
    }

    @Test("identifiers have at most 255 bytes")
    func length() {
        let fits = String(repeating: "a", count: 252)
        #expect(UserID("@\(fits):x") != nil)
        #expect(UserID("@\(fits)a:x") == nil)
        #expect(UserID("@\(String(repeating: "é", count: 127)):x") == nil)
        #expect(RoomAlias("#\(fits)a:x") == nil)
        #expect(RoomID("!\(fits)a:x") == nil)
        #expect(EventID("$" + String(repeating: "a", count: 254)) != nil)
        #expect(EventID("$" + String(repeating: "a", count: 255)) == nil)
    }

    @Test(
        "room IDs with a domain, and those of room version 12",
        arguments: [
            ("!abc:example.org", true), ("!a\u{7}ü/:example.org", true), ("!:example.org", false), ("!abc", false),
            ("!abc:", false),
            ("!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM", true),
            ("!31hneApxJ/1o+63DmFrpeqnkFfWppnzWso1JvH3ogLM", false),
            ("!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogL", false),
        ])
    func roomIDs(text: String, isValid: Bool) {
        #expect((RoomID(text) != nil) == isValid)
    }

    @Test("a room ID of version 12 is its create event's ID with another sigil")
    func hashedRoomID() {
        let event = EventID(unchecked: "$31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM")
        #expect(RoomID(create: event).string == "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM")
        #expect(RoomID(create: event).createEventID == event)
        #expect(RoomID(create: event).server == nil)
        #expect(RoomID("!a:b")?.createEventID == nil)
    }

    @Test(
        "event IDs of all formats",
        arguments: [
            ("$143273582443PhrSn:example.org", true), ("$acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7XcJk", true),
            ("$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg", true), ("$", false), ("$a:", false), ("a", false),
            ("$a\u{0}b", false),
        ])
    func eventIDs(text: String, isValid: Bool) {
        #expect((EventID(text) != nil) == isValid)
    }

    @Test("identifiers are compared by bytes, not by canonical equivalence")
    func comparison() throws {
        let composed = try #require(UserID("@\u{E9}:x"))
        let decomposed = try #require(UserID("@e\u{301}:x"))
        #expect(composed != decomposed)
        #expect(Set([composed, decomposed]).count == 2)
        #expect(decomposed < composed)
        #expect(StateKey("m", "\u{E9}") != StateKey("m", "e\u{301}"))
    }

    @Test("room versions are opaque identifiers")
    func roomVersions() {
        #expect(RoomVersion.named("12") == .v12)
        #expect(RoomVersion.named("012") == nil)
        #expect(RoomVersion.named("13") == nil)
        #expect(RoomVersion.isValidIdentifier("org.matrix.msc1234.v1-beta"))
        #expect(!RoomVersion.isValidIdentifier(""))
        #expect(!RoomVersion.isValidIdentifier("A"))
        #expect(!RoomVersion.isValidIdentifier(String(repeating: "1", count: 33)))
    }
}

@Suite("Base64") struct Base64Tests {
    @Test(
        "the examples of the appendix",
        arguments: [
            ("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"), ("fooba", "Zm9vYmE"),
            ("foobar", "Zm9vYmFy"),
        ])
    func vectors(text: String, encoded: String) {
        #expect(Base64.encode(text.utf8) == encoded)
        #expect(Base64.decode(encoded) == Array(text.utf8))
    }

    @Test("both alphabets and padding are read")
    func alphabets() {
        #expect(Base64.encode([0xFB, 0xFF], alphabet: .standard) == "+/8")
        #expect(Base64.encode([0xFB, 0xFF], alphabet: .urlSafe) == "-_8")
        for text in ["+/8", "-_8", "+/8=", "-_8="] { #expect(Base64.decode(text) == [0xFB, 0xFF]) }
        #expect(Base64.decode("Zg==") == [0x66])
    }

    @Test(
        "what is no Base64 is refused", arguments: ["A", "Zg=", "Z===", "====", "a b", "Zm9v\n", "Zm9vä", "Zg==Zg=="])
    func invalid(text: String) {
        #expect(Base64.decode(text) == nil)
    }
}

@Suite("Other identifiers") struct OtherIdentifierTests {
    @Test("devices, aliases and their parts")
    func parts() {
        #expect(DeviceID("ABC 123/ü")?.string == "ABC 123/ü")
        #expect(DeviceID("") == nil)
        #expect(DeviceID("a\nb") == nil)
        #expect(DeviceID(String(repeating: "a", count: 256)) == nil)
        let alias = RoomAlias("#a/b:example.org:80")
        #expect(alias?.localpart == "a/b")
        #expect(alias?.server.string == "example.org:80")
        #expect(RoomAlias("#:x") == nil)
        #expect(RoomAlias("#a\u{0}:x") == nil)
        #expect(EventID("$a:x")?.server?.string == "x")
    }
}
