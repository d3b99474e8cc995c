import Homeserver
import MatrixCore
import RoostTestSupport
import Testing

@testable import Database

/// Several homeservers on a network within the process.
final class FederationScene: Sendable {
    let network = TestNetwork()
    let servers: [TestServer]

    /// - Parameter wrap: what stands between a server and the network.
    init(
        _ count: Int, configure: (inout Configuration) -> Void = { _ in },
        wrap: (any FederationTransport) -> any FederationTransport = { $0 }
    ) async throws {
        var servers: [TestServer] = []
        for number in 1...count {
            let name = ServerName(unchecked: "hs\(number).example")
            let clock = ManualSurroundings(seed: UInt64(number))
            let server = try await TestServer(clock: clock, transport: wrap(network.transport(of: name))) {
                configuration in
                configuration.serverName = name
                configure(&configuration)
            }
            network.connect(server.homeserver)
            try await server.homeserver.startJobs()
            servers.append(server)
        }
        self.servers = servers
    }

    subscript(index: Int) -> TestServer { servers[index] }

    func close() async { for server in servers { await server.close() } }

    /// Waits until something holds; clocks go on meanwhile, so that what rests is tried again: fast, but not so that on a machine that has
    /// much else to do the time that a request may take is over before anybody could answer it.
    func eventually(
        _ what: Comment, sourceLocation: SourceLocation = #_sourceLocation, _ holds: () async throws -> Bool
    ) async throws {
        for _ in 0..<4_000 {
            if try await holds() { return }
            let slept = try await ContinuousClock().measure { try await Task.sleep(for: .milliseconds(5)) }
            let step = min(200, Int64(5_000 / max(1, slept / .milliseconds(1))))
            for server in servers { server.clock.advance(by: max(step, 1)) }
        }
        Issue.record(what, sourceLocation: sourceLocation)
    }

    /// The texts that a user sees in a room, oldest first.
    func texts(in room: RoomID, for user: Requester, on server: TestServer) async throws -> [String] {
        try await server.history(of: room, for: user).reversed()
    }
}
