import Testing

@testable import MatrixCore

/// Server-Server API, Validating hashes and signatures on received events.
@Suite("Event signatures") struct EventSignatureTests {
    func event(_ version: RoomVersion) throws -> (Event, RoomBuilder) {
        var room = try RoomBuilder.room(version)
        return (try room.add("m.room.message", sender: "@creator:hs", content: ["body": "x"]), room)
    }

    @Test("a key that was not valid when the event was sent is refused from version 5 on", arguments: RoomVersion.all)
    func validity(version: RoomVersion) throws {
        let (event, room) = try event(version)
        for (validUntil, isValid) in [
            (event.originServerTS, true), (event.originServerTS - 1, version.number < 5), (nil, true),
        ] as [(Int64?, Bool)] {
            let key = try #require(
                VerifyKey(keyID: room.key.keyID, publicKey: room.key.publicKey, validUntil: validUntil))
            #expect(event.verify(signatureOf: room.server, with: key) == isValid)
            #expect((SignatureChecking.verdict(on: event) { _, _ in key } == .valid) == isValid)
        }
    }

    @Test("the server of the event ID has to sign in versions 1 and 2", arguments: RoomVersion.from(1, to: 2))
    func eventIDServer(version: RoomVersion) throws {
        let (event, room) = try event(version)
        var json = event.root.json
        json["event_id"] = "$abc:other"
        let moved = try Event(receiving: json.encoded(), version: version)
        #expect(moved.requiredSigners.map(\.string) == ["hs", "other"])
        let verdict = SignatureChecking.verdict(on: moved) { _, _ in room.key.verifyKey }
        #expect(verdict == .invalid(room.server))
    }

    @Test("unknown keys are skipped; one known key is needed, and every known one has to be right")
    func keys() throws {
        let (event, room) = try event(.v11)
        let other = try #require(SigningKey(seed: Array(repeating: 3, count: 32), version: "2"))
        let signedTwice = try event.addingSignature(by: other, as: room.server)
        func verdict(_ keys: [VerifyKey?]) -> SignatureChecking.Verdict {
            SignatureChecking.verdict(on: signedTwice) { _, id in keys.compactMap { $0 }.first { $0.keyID == id } }
        }
        let wrong = VerifyKey(keyID: "ed25519:2", publicKey: room.key.publicKey)
        #expect(verdict([]) == .noKnownKey(room.server))
        #expect(verdict([room.key.verifyKey]) == .valid)
        #expect(verdict([other.verifyKey]) == .valid)
        #expect(verdict([room.key.verifyKey, other.verifyKey]) == .valid)
        #expect(verdict([room.key.verifyKey, wrong]) == .invalid(room.server))
    }

    @Test("A06 an event without a signature, or with another's, is not valid", arguments: RoomVersion.all)
    func unsigned(version: RoomVersion) throws {
        let (event, room) = try event(version)
        let key = try #require(room.key.verifyKey)
        for signatures in [[:], ["other": ["ed25519:1": "x"]], ["hs": [:]], ["hs": ["rsa:1": "x"]]] as [JSON] {
            var json = event.root.json
            json["signatures"] = signatures
            let changed = try Event(receiving: json.encoded(), version: version)
            #expect(SignatureChecking.verdict(on: changed) { _, _ in key } == .noKnownKey(room.server))
        }
        for signature in ["", "AAAA", "!!!", Base64.encode([UInt8](repeating: 0, count: 64))] {
            var json = event.root.json
            json["signatures"] = ["hs": ["ed25519:1": .string(signature)]]
            let changed = try Event(receiving: json.encoded(), version: version)
            #expect(SignatureChecking.verdict(on: changed) { _, _ in key } == .invalid(room.server))
        }
    }

    @Test("many events are checked side by side, verdicts in their order")
    func parallel() async throws {
        var room = try RoomBuilder.room(.v11)
        var events: [Event] = []
        for number in 0..<100 {
            let event = try room.make("m.room.message", sender: "@creator:hs", content: ["n": .integer(Int64(number))])
            guard number % 7 == 0 else {
                events.append(event)
                continue
            }
            var json = event.root.json
            json["depth"] = 1_000
            events.append(try Event(receiving: json.encoded(), version: .v11))
        }
        let key = try #require(room.key.verifyKey)
        let verdicts = await SignatureChecking.verdicts(on: events) { _, _ in key }
        #expect(verdicts.enumerated().allSatisfy { ($0.element == .valid) == ($0.offset % 7 != 0) })
        #expect(verdicts.count == 100)
        #expect(await SignatureChecking.verdicts(on: []) { _, _ in key }.isEmpty)
    }
}
