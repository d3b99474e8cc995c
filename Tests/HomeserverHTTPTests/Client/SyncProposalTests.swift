import MatrixCore
import NIOHTTP1
import RoostTestSupport
import Testing

@testable import Homeserver
@testable import HomeserverHTTP

/// What proposals add to `/sync`: sticky events (MSC4354) and changes of profiles (MSC4429).
@Suite("Client-Server API: sticky events and changes of profiles")
struct SyncProposalTests {
    private let base = "/_matrix/client/v3"
    private let client: ClientSession
    private let alice: String
    private let bob: String
    private let room: String

    init() async throws {
        client = ClientSession(try await TestServer())
        alice = await client.register("alice")
        bob = await client.register("bob")
        room = await client.room(of: alice)
    }

    private func sync(_ token: String, since: String? = nil, filter: String = "") async -> JSON {
        let escaped = filter.utf8.map { byte in
            (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
                ? String(UnicodeScalar(byte)) : "%" + Hex.encode([byte])
        }.joined()
        let query = [since.map { "since=\($0)" }, filter.isEmpty ? nil : "filter=\(escaped)"].compactMap { $0 }
        let answer = await client.ask(.GET, "\(base)/sync?\(query.joined(separator: "&"))", token)
        #expect(answer.status == 200, "\(answer.summary)")
        return answer.json
    }

    @Test("a sticky event comes once, behind the timeline's limit, with the time that it has left")
    func sticky() async throws {
        #expect(await client.ask(.POST, "\(base)/join/\(room)", bob, [:]).status == 200)
        let since = await sync(bob)["next_batch"]?.stringValue
        let name = "org.matrix.msc4354.sticky_duration_ms"
        let message = await client.ask(
            .PUT, "\(base)/rooms/\(room)/send/m.rtc.member/1?\(name)=300000", alice, ["msc4354_sticky_key": "k"])
        let state = await client.ask(
            .PUT, "\(base)/rooms/\(room)/state/org.example.state/x?\(name)=60000", alice, ["a": 1])
        let ids = [message, state].map { $0.json["event_id"]?.stringValue }
        for number in 0..<3 {
            _ = await client.ask(.PUT, "\(base)/rooms/\(room)/send/m.room.message/m\(number)", alice, ["body": "x"])
        }
        client.server.clock.advance(by: 10_000)
        let filter = #"{"room":{"timeline":{"limit":1}}}"#
        let first = await sync(bob, since: since, filter: filter)
        let told = first["rooms"]?["join"]?[room]?["msc4354_sticky"]?["events"]?.arrayValue ?? []
        #expect(told.map { $0["event_id"]?.stringValue } == ids)
        #expect(told.map { $0["unsigned"]?["msc4354_sticky_duration_ttl_ms"] } == [290_000, 50_000])
        #expect(told.first?["msc4354_sticky"] == ["duration_ms": 300_000])
        #expect(told.first?["content"] == ["msc4354_sticky_key": "k"])
        let second = await sync(bob, since: first["next_batch"]?.stringValue, filter: filter)
        #expect(second["rooms"]?["join"] == nil)
        // The timeline's filter comes before: what it leaves out sticks all the same.
        let filtered = await sync(
            bob, since: since, filter: #"{"room":{"timeline":{"limit":50,"not_types":["m.rtc.member"]}}}"#)
        let others = filtered["rooms"]?["join"]?[room]?["msc4354_sticky"]?["events"]?.arrayValue ?? []
        #expect(others.map { $0["event_id"]?.stringValue } == [ids[0]])
        for wrong in ["-1", "3600001", "x", "1.5"] {
            for target in ["send/m.rtc.member/w", "state/m.rtc.member/w"] {
                let answer = await client.ask(.PUT, "\(base)/rooms/\(room)/\(target)?\(name)=\(wrong)", alice, [:])
                #expect(answer.status == 400 && answer.code == "M_INVALID_PARAM", "\(target) \(wrong)")
            }
        }
        let features = await client.ask(.GET, "/_matrix/client/versions", nil).json["unstable_features"]
        #expect(features?["org.matrix.msc4354"] == true)
        await client.server.close()
    }

    @Test("changes of profiles come to who asks for their fields and shares a room, and end with that")
    func profiles() async throws {
        let filter = #"{"org.matrix.msc4429.profile_fields":{"ids":["org.example.status"]}}"#
        let status = "\(base)/profile/@alice:localhost/org.example.status"
        #expect(await client.ask(.PUT, status, alice, ["org.example.status": ["text": "in"]]).status == 200)
        var since = await sync(bob, filter: filter)["next_batch"]?.stringValue
        #expect(await client.ask(.POST, "\(base)/join/\(room)", bob, [:]).status == 200)
        func next() async -> JSON? {
            let answer = await sync(bob, since: since, filter: filter)
            since = answer["next_batch"]?.stringValue
            return answer["org.matrix.msc4429.users"]?["@alice:localhost"]?["profile_updates"]
        }
        #expect(await next() == ["org.example.status": ["text": "in"]])
        #expect(await client.ask(.PUT, status, alice, ["org.example.status": [:]]).status == 200)
        #expect(
            await client.ask(.PUT, "\(base)/profile/@alice:localhost/org.other", alice, ["org.other": 1]).status == 200)
        #expect(await next() == ["org.example.status": [:]])
        #expect(await client.ask(.DELETE, status, alice).status == 200)
        #expect(await next() == ["org.example.status": nil])
        #expect(await next() == nil)
        #expect(await client.ask(.POST, "\(base)/rooms/\(room)/leave", bob, [:]).status == 200)
        #expect(await next() == .null)
        for wrong in [
            #"{"org.matrix.msc4429.profile_fields":7}"#, #"{"org.matrix.msc4429.profile_fields":{"ids":[1]}}"#,
        ] {
            let body = try JSONDocument(parsing: Array(wrong.utf8)).root.json
            let answer = await client.ask(.POST, "\(base)/user/@bob:localhost/filter", bob, body)
            #expect(answer.status == 400 && answer.code == "M_BAD_JSON", "\(wrong): \(answer.summary)")
        }
        let features = await client.ask(.GET, "/_matrix/client/versions", nil).json["unstable_features"]
        #expect(features?["org.matrix.msc4429"] == true && features?["org.matrix.msc4262"] == true)
        await client.server.close()
    }
}
