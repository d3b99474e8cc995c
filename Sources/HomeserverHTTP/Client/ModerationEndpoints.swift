import Database
import Homeserver
import MatrixCore

/// Server administration (Client-Server API, "Account moderation", module "Server Administration").
extension ClientAPI {
    var moderationEndpoints: [Endpoint] {
        standing("lock", member: "locked", .locked) + standing("suspend", member: "suspended", .suspended) + [
            Endpoint(
                .GET, "/_matrix/client/{version:v3|r0}/admin/whois/{userId}", authentication: .accessToken
            ) { request in
                let user = try UserID.parse(request["userId"])
                let devices = try await self.homeserver.accounts.whois(user, by: try request.authenticated())
                var shown: JSON = [:]
                for device in devices {
                    let connections: [JSON] = device.lastSeenTS == nil ? [] : [device.connection]
                    shown[device.deviceID] = ["sessions": [["connections": .array(connections)]]]
                }
                return .json(["user_id": .string(user.string), "devices": shown])
            }
        ]
    }

    private func standing(_ name: String, member: String, _ standing: AccountStanding) -> [Endpoint] {
        let path = PathPattern("/_matrix/client/v1/admin/\(name)/{userId}")
        return [
            Endpoint(.GET, path, authentication: .administrator) { request in
                let current = try await self.homeserver.accounts.standing(of: try UserID.parse(request["userId"]))
                return .json([member: .bool(current.contains(standing))])
            },
            Endpoint(.PUT, path, authentication: .administrator) { request in
                let holds = try await request.json().root.requiredBool(member)
                try await self.homeserver.accounts.set(
                    standing, holds, of: try UserID.parse(request["userId"]), by: try request.authenticated())
                return .json([member: .bool(holds)])
            },
        ]
    }
}

extension Device {
    fileprivate var connection: JSON {
        var connection: JSON = [:]
        if let lastSeenIP { connection["ip"] = .string(lastSeenIP) }
        if let lastSeenTS { connection["last_seen"] = .integer(lastSeenTS) }
        if let userAgent { connection["user_agent"] = .string(userAgent) }
        return connection
    }
}
