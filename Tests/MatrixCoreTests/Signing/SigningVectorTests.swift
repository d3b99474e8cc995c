import Testing

@testable import MatrixCore

/// Appendices, Cryptographic Test Vectors.
@Suite("Signing vectors") struct SigningVectorTests {
    static let server = ServerName(unchecked: "domain")
    let key: SigningKey

    init() throws {
        let seed = try #require(Base64.decode("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"))
        key = try #require(SigningKey(seed: seed, version: "1"))
    }

    @Test(
        "signing JSON",
        arguments: [
            ([:], "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"),
            (
                ["one": 1, "two": "Two"],
                "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"
            ),
        ] as [(JSON, String)])
    func json(object: JSON, signature: String) throws {
        let signed = try key.sign(object, as: Self.server)
        #expect(signed["signatures"] == ["domain": ["ed25519:1": .string(signature)]])
        let verifyKey = try #require(key.verifyKey)
        #expect(try signed.document().root.isSigned(by: Self.server, with: verifyKey))
        var changed = signed
        changed["three"] = 3
        #expect(try !changed.document().root.isSigned(by: Self.server, with: verifyKey))
        changed = signed
        changed["unsigned"] = ["age": 1]
        #expect(try changed.document().root.isSigned(by: Self.server, with: verifyKey))
    }

    @Test(
        "signing events",
        arguments: [
            (
                #"{"room_id":"!x:domain","sender":"@a:domain","origin":"domain","origin_server_ts":1000000,"signatures":{},"hashes":{},"type":"X","content":{},"prev_events":[],"auth_events":[],"depth":3,"unsigned":{"age_ts":1000000}}"#,
                "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
                "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg"
            ),
            (
                #"{"content":{"body":"Here is the message content"},"event_id":"$0:domain","origin":"domain","origin_server_ts":1000000,"type":"m.room.message","room_id":"!r:domain","sender":"@u:domain","signatures":{},"unsigned":{"age_ts":1000000}}"#,
                "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
                "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA"
            ),
        ])
    func events(text: String, hash: String, signature: String) throws {
        var event = try JSONDocument(parsing: Array(text.utf8)).root.json
        let canonical = try JSONDocument(parsing: event.canonical())
        #expect(Base64.encode(EventHashing.contentHash(canonical.root)) == hash)
        event["hashes"] = ["sha256": .string(hash)]
        let hashed = try JSONDocument(parsing: event.canonical())
        let redacted = EventHashing.redacted(
            hashed.root, type: event["type"]?.stringValue ?? "", rules: RoomVersion.v1.rules.redaction,
            omitting: ["signatures", "unsigned"])
        #expect(Base64.encode(key.sign(redacted)) == signature)
    }

    @Test("a key is 32 bytes and a version of letters, digits and underscores")
    func keys() {
        let seed = [UInt8](repeating: 1, count: 32)
        #expect(SigningKey(seed: seed, version: "a_1")?.keyID == "ed25519:a_1")
        #expect(SigningKey(seed: seed, version: "") == nil)
        #expect(SigningKey(seed: seed, version: "a:1") == nil)
        #expect(SigningKey(seed: [1], version: "1") == nil)
        #expect(VerifyKey(keyID: "rsa:1", publicKey: seed) == nil)
        #expect(VerifyKey(keyID: "ed25519:1", publicKey: [1]) == nil)
    }

    @Test("a key counts for seven days after it was fetched at most, and never longer than its server says")
    func validity() {
        let day: Int64 = 86_400_000
        #expect(VerifyKey.validity(validUntilTS: 100 * day, fetchedAt: day) == 8 * day)
        #expect(VerifyKey.validity(validUntilTS: 2 * day, fetchedAt: day) == 2 * day)
        #expect(VerifyKey.validity(validUntilTS: 5, fetchedAt: .max) == 5)
    }
}
