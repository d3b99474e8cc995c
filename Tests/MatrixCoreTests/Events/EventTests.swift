import Testing

@testable import MatrixCore

@Suite("Events") struct EventTests {
    @Test("an event that was signed is received as the same event in every room version", arguments: RoomVersion.all)
    func roundTrip(version: RoomVersion) throws {
        var room = try RoomBuilder.room(version)
        let event = try room.add("m.room.message", sender: "@creator:hs", content: ["body": "h\u{e9}llo \"x\"\n"])
        let received = try Event(receiving: event.json, version: version)
        #expect(received.eventID == event.eventID)
        #expect(received.json == event.json)
        #expect(received.roomID == event.roomID)
        #expect(received.content["body"]?.string == "h\u{e9}llo \"x\"\n")
        #expect(received.prevEvents == [room.events[room.events.count - 2].eventID])
        #expect(received.authEvents.count == (version.rules.roomIDs == .withDomain ? 3 : 2))
        #expect(received.stateKey == nil)
        #expect(received.contentHashMatches())
        let key = try #require(room.key.verifyKey)
        #expect(received.requiredSigners == [room.server])
        #expect(received.verify(signatureOf: room.server, with: key))
        let stored = try Event(stored: event.json, eventID: event.eventID, version: version)
        #expect(stored.authEvents == event.authEvents)
        #expect(stored.sender == event.sender)
    }

    @Test("order, white space, escapes and unsigned data of the sender change nothing", arguments: RoomVersion.all)
    func normalisation(version: RoomVersion) throws {
        var room = try RoomBuilder.room(version)
        let event = try room.add("m.room.message", sender: "@creator:hs", content: ["body": "x/y"])
        var members = Array(event.root.members)
        members.reverse()
        let text = members.map { "\"\($0.key)\" : \(String(decoding: $0.value.raw, as: UTF8.self))" }
        let spelled = "{ \(text.joined(separator: ",\n")), \"unsigned\":{\"age\":5} }".replacingSlash()
        let received = try Event(receiving: Array(spelled.utf8), version: version)
        #expect(received.json == event.json)
        #expect(received.eventID == event.eventID)
    }

    @Test("a changed event fails the hash check; its redacted form keeps ID and signature", arguments: RoomVersion.all)
    func tampering(version: RoomVersion) throws {
        var room = try RoomBuilder.room(version)
        let event = try room.add("m.room.message", sender: "@creator:hs", content: ["body": "yes"])
        var json = event.root.json
        json["content"]?["body"] = "no"
        let tampered = try Event(receiving: json.encoded(), version: version)
        #expect(tampered.eventID == event.eventID)
        #expect(!tampered.contentHashMatches())
        let key = try #require(room.key.verifyKey)
        #expect(tampered.verify(signatureOf: room.server, with: key))
        let redacted = tampered.redacted()
        #expect(redacted.content.count == 0)
        #expect(redacted.eventID == event.eventID)
        #expect(redacted.json == event.redacted().json)
        #expect(redacted.verify(signatureOf: room.server, with: key))
        json["depth"] = 77
        let moved = try Event(receiving: json.encoded(), version: version)
        #expect(!moved.verify(signatureOf: room.server, with: key))
        if version.rules.eventIDs != .assigned { #expect(moved.eventID != event.eventID) }
    }

    @Test("cutting leaves the event as clients get it", arguments: RoomVersion.all)
    func clientCuts(version: RoomVersion) throws {
        var room = try RoomBuilder.room(version)
        let event = try room.add("m.room.topic", sender: "@creator:hs", stateKey: "", content: ["topic": "t"])
        for candidate in room.events + [event] {
            let json = try JSONDocument(parsing: candidate.clientJSON()).root
            #expect(
                Set(json.members.map(\.key)) == [
                    "content", "event_id", "origin_server_ts", "room_id", "sender", "state_key", "type",
                ])
            #expect(json["event_id"]?.string == candidate.eventID.string)
            #expect(json["room_id"]?.string == candidate.roomID.string)
        }
    }

    @Test(
        "cuts at the ends and in runs leave no stray comma",
        arguments: [
            (
                #"{"auth_events":[],"content":{},"depth":1,"hashes":{},"type":"x","unsigned":{}}"#,
                #"{"content":{},"type":"x"}"#
            ),
            (#"{"depth":1,"hashes":{},"signatures":{}}"#, "{}"),
            (#"{"content":1,"depth":1,"hashes":2}"#, #"{"content":1}"#),
            (#"{"content":1}"#, #"{"content":1}"#),
            (#"{"a":1,"depth":1,"e":2,"origin":3,"z":4}"#, #"{"a":1,"e":2,"z":4}"#),
        ])
    func cutting(text: String, expected: String) throws {
        let root = try JSONDocument(parsing: Array(text.utf8)).root
        var output: [UInt8] = []
        var position = 0
        for cut in Event.clientCuts(of: root) {
            output += root.document.bytes[position..<cut.lowerBound]
            position = cut.upperBound
        }
        output += root.document.bytes[position...]
        #expect(String(decoding: output, as: UTF8.self) == expected)
    }
}

extension String {
    /// Spells every slash inside with an escape, as some JSON libraries do.
    func replacingSlash() -> String { split(separator: "/", omittingEmptySubsequences: false).joined(separator: "\\/") }
}
