import Foundation
import Testing

@testable import MatrixCore

/// Compares our authorisation and state resolution with Synapse's on generated rooms; `scripts/test-oracle` makes the cases.
///
/// Without the environment variable that names their folder a handful of committed cases are read.
@Suite("Synapse as an oracle") struct OracleTests {
    static let folder: URL = {
        if let path = ProcessInfo.processInfo.environment["ROOST_ORACLE_CASES"] { return URL(fileURLWithPath: path) }
        let resources = Bundle.module.resourceURL ?? URL(fileURLWithPath: ".")
        return resources.appendingPathComponent("Vectors/oracle")
    }()

    struct Room {
        let seed: Int64
        let events: [Event]
        let byID: [EventID: Event]
        let json: JSONView

        init(_ json: JSONView, version: RoomVersion) throws {
            self.json = json
            seed = json["seed"]?.integer ?? 0
            events = try (json["events"] ?? json).elements.map { try Event(receiving: Array($0.raw), version: version) }
            byID = Dictionary(events.map { ($0.eventID, $0) }, uniquingKeysWith: { first, _ in first })
        }

        func state(_ numbers: JSONView) -> [StateKey: Event] {
            var state: [StateKey: Event] = [:]
            for number in numbers.elements {
                guard let event = number.integer.map({ events[Int($0)] }), let key = event.stateMapKey else { continue }
                state[key] = event
            }
            return state
        }
    }

    static func rooms(of version: RoomVersion) throws -> [Room] {
        let file = folder.appendingPathComponent("v\(version).jsonl")
        let data = try Array(Data(contentsOf: file))
        return try data.split(separator: 0x0A).map { line in
            try Room(JSONDocument(parsing: Array(line), limits: .envelope).root, version: version)
        }
    }

    @Test("event IDs agree", arguments: RoomVersion.all)
    func eventIDs(version: RoomVersion) throws {
        let rooms = try Self.rooms(of: version)
        #expect(!rooms.isEmpty)
        for room in rooms {
            let ids = room.json["ids"]?.elements.compactMap(\.string)
            #expect(room.events.map(\.eventID.string) == ids, "seed \(room.seed)")
        }
    }

    @Test("verdicts agree", arguments: RoomVersion.all)
    func authorisation(version: RoomVersion) throws {
        var count = 0
        for room in try Self.rooms(of: version) {
            for check in (try #require(room.json["checks"])).elements {
                let fields = Array(check.elements)
                let event = room.events[Int(try #require(fields[0].integer))]
                let state = room.state(fields[1])
                count += 1

                var independent = true
                do {
                    try Authorization.checkAuthEvents(event, authEvents: event.authEvents.compactMap { room.byID[$0] })
                    if event.type == "m.room.create" { try Authorization.check(event) { _ in nil } }
                } catch { independent = false }
                #expect(
                    independent == fields[2].bool,
                    "auth events, seed \(room.seed), \(String(decoding: event.json, as: UTF8.self))")

                if let expected = fields[3].bool {
                    var reason = "allowed"
                    do { try Authorization.check(event) { state[$0] } } catch { reason = "\(error)" }
                    #expect(
                        (reason == "allowed") == expected,
                        "state, seed \(room.seed), event \(fields[0].integer ?? -1), \(reason), \(String(decoding: event.json, as: UTF8.self))"
                    )
                }
            }
        }
        #expect(count > 0)
    }

    @Test("resolutions agree", arguments: RoomVersion.all)
    func resolution(version: RoomVersion) throws {
        var count = 0
        for room in try Self.rooms(of: version) {
            let source = EventLookup(room.byID)
            for (number, resolution) in (try #require(room.json["resolutions"])).elements.enumerated() {
                let fields = Array(resolution.elements)
                let states = fields[0].elements.map { room.state($0).mapValues(\.eventID) }
                let expected = room.state(fields[1]).mapValues(\.eventID)
                let resolved = try StateResolution.resolve(states, version: version, source: source)
                count += 1
                if resolved != expected {
                    let keys = Set(resolved.keys).union(expected.keys).filter { resolved[$0] != expected[$0] }
                    Issue.record("seed \(room.seed), resolution \(number), at \(keys.sorted())")
                }
            }
        }
        #expect(count > 0)
    }

    @Test("IDs, redaction, content hashes and signatures agree", arguments: RoomVersion.all)
    func events(version: RoomVersion) throws {
        let data = try Array(Data(contentsOf: Self.folder.appendingPathComponent("events-v\(version).jsonl")))
        let seed = try #require(Base64.decode("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"))
        let key = try #require(SigningKey(seed: seed, version: "1"))
        let verifyKey = try #require(key.verifyKey)
        var count = 0
        for line in data.split(separator: 0x0A) {
            let json = try JSONDocument(parsing: Array(line)).root
            let text = try #require(json["event"]?.string)
            let event = try Event(receiving: Array(text.utf8), version: version)
            count += 1
            #expect(event.eventID.string == json["id"]?.string)
            #expect(String(decoding: event.redacted().json, as: UTF8.self) == json["redacted"]?.string)
            #expect(Base64.encode(EventHashing.contentHash(event.root)) == json["hash"]?.string)
            let signature = try #require(json["signature"]?.string)
            #expect(Base64.encode(key.sign(event.signedBytes())) == signature)
            let signed = try event.addingSignature(
                Base64.decode(signature) ?? [], keyID: "ed25519:1", of: ServerName(unchecked: "hs1"))
            #expect(signed.verify(signatureOf: ServerName(unchecked: "hs1"), with: verifyKey))
        }
        #expect(count > 0)
    }
}
