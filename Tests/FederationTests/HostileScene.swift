import Homeserver
import MatrixCore
import RoostTestSupport
import Testing

@testable import Database

/// A server under attack, with a room in which the attacker has a user.
struct HostileScene {
    let scene: FederationScene
    let alice: Requester
    let room: RoomID
    let evil: HostileServer
    let mallory: UserID
    let place: HostileServer.Place
    var server: TestServer { scene[0] }
    var name: ServerName { scene[0].configuration.serverName }

    init(version: String = "11", _ change: (inout RoomCreationService.Request) -> Void = { _ in }) async throws {
        scene = try await FederationScene(1)
        alice = try await scene[0].user("alice")
        room = try await scene[0].room(of: alice, version: version, change)
        evil = HostileServer("evil.example", on: scene.network, clock: scene[0].clock)
        mallory = evil.user("mallory")
        place = try await evil.join(room, as: mallory, at: scene[0].configuration.serverName)
    }

    func flags(of event: Event) async throws -> StoredEvent.Flags? {
        try await server.homeserver.database.event(event.eventID)?.flags
    }

    func isShown(_ event: Event) async throws -> Bool {
        guard let stored = try await server.homeserver.database.event(event.eventID) else { return false }
        return stored.position != nil && stored.flags.isDisjoint(with: .hidden)
    }

    func state(_ type: String, _ key: String = "") async throws -> JSONView? {
        let list = try JSONDocument(parsing: try await server.homeserver.reading.state(of: room, for: alice)).root
        return list.elements.first { $0["type"]?.isString(type) == true && $0["state_key"]?.isString(key) == true }
    }

    /// Has the attacker answer requests for paths that contain a text; nil: as if the network were cut.
    func answer(_ path: String, _ answer: @escaping @Sendable (ServerRequest) throws -> JSON?) {
        let own = evil.name
        scene.network.forge { request in
            guard request.destination == own, request.target.contains(path) else { return nil }
            return (try? answer(request)).flatMap { $0 }.map { ServerResponse(status: 200, body: $0.encoded()) }
        }
    }

    func message(_ text: String) -> JSON { ["msgtype": "m.text", "body": .string(text)] }
}
