import Homeserver
import MatrixCore

/// Keys of servers (Server-Server API, "Retrieving server keys"), and which software this is.
extension FederationAPI {
    var keyEndpoints: [Endpoint] {
        [
            Endpoint(
                .GET, ["/_matrix/key/v2/server", "/_matrix/key/v2/server/{keyId}"], api: .federation,
                authentication: .none
            ) { _ in .json(try await self.federation.ownKeys()) },
            Endpoint(.POST, "/_matrix/key/v2/query", api: .federation, authentication: .none) { request in
                let body = try await request.json().root
                guard let servers = body["server_keys"], servers.isObject else {
                    throw MatrixError.missingParam("server_keys")
                }
                var asked: [ServerName: Int64] = [:]
                for (name, keys) in servers.members {
                    guard let server = ServerName(name) else { continue }
                    asked[server] = keys.members.compactMap { $0.value["minimum_valid_until_ts"]?.integer }.max() ?? 0
                }
                return .json(
                    try await self.federation.keys(of: asked) { try self.homeserver.limitAsking(for: request) })
            },
            Endpoint(
                .GET, ["/_matrix/key/v2/query/{serverName}", "/_matrix/key/v2/query/{serverName}/{keyId}"],
                api: .federation, authentication: .none
            ) { request in
                guard let server = ServerName(request["serverName"]) else {
                    throw MatrixError.invalidParam("“\(request["serverName"])” is not a server's name.")
                }
                let minimum = try request.integer("minimum_valid_until_ts") ?? 0
                return .json(
                    try await self.federation.keys(of: [server: minimum]) {
                        try self.homeserver.limitAsking(for: request)
                    })
            },
            Endpoint(
                .GET, PathPattern("\(Self.prefix)/version"), api: .federation, authentication: .none
            ) { _ in .json(["server": ["name": .string(Version.name), "version": .string(Version.number)]]) },
        ]
    }
}
