import Homeserver
import MatrixCore
import RoostTestSupport
import Synchronization

/// A server in the room that lies.
final class ByzantineServer: @unchecked Sendable {
    let hostile: HostileServer
    let user: UserID
    var name: ServerName { hostile.name }
    var verifyKey: VerifyKey { hostile.key.verifyKey! }
    /// Events that nobody may take for true.
    var forgeries: Set<EventID> = []

    init(in world: World) async throws {
        hostile = HostileServer("evil.example", on: world.network, clock: world.clock)
        user = hostile.user("mallory")
    }

    func act() {}
}
