import Homeserver
import MatrixCore
import NIOHTTP1

/// The command line's own API, under `/_roost/admin/v1`. It is served on the local socket only, whose file only the
/// server's user may open; that is its authentication.
public enum AdminEndpoints {
    private static let prefix = "/_roost/admin/v1"

    /// - Parameter baseURL: the homeserver URL, told to whoever makes an account.
    public static func all(_ service: any AdminService, baseURL: String) -> [Endpoint] {
        users(service, baseURL) + tokens(service)
    }

    private static func endpoint(
        _ method: HTTPMethod, _ path: String, handler: @escaping Endpoint.Handler
    ) -> Endpoint {
        Endpoint(
            method, PathPattern(prefix + path), api: .local, authentication: .localSocket, rateLimit: .none,
            handler: handler)
    }

    private static func users(_ service: any AdminService, _ baseURL: String) -> [Endpoint] {
        [
            endpoint(.GET, "/users") { _ in
                .json(["users": .array(try await service.users().map(\.json))])
            },
            endpoint(.POST, "/users") { request in
                let body = try await request.json()
                let userID = try await service.createUser(
                    localpart: try body.text("localpart"), password: try body.text("password"),
                    admin: body.root["admin"]?.bool ?? false)
                return .json(["user_id": .string(userID.string), "homeserver_url": .string(baseURL)])
            },
            endpoint(.POST, "/users/{user}/promote") { request in
                .json(["user_id": .string(try await service.promote(request["user"]).string)])
            },
            endpoint(.PUT, "/users/{user}/password") { request in
                let password = try await request.json().text("password")
                return .json(["user_id": .string(try await service.setPassword(password, of: request["user"]).string)])
            },
            endpoint(.POST, "/users/{user}/deactivate") { request in
                .json(["user_id": .string(try await service.deactivate(request["user"]).string)])
            },
        ]
    }

    private static func tokens(_ service: any AdminService) -> [Endpoint] {
        [
            endpoint(.GET, "/tokens") { _ in
                .json(["tokens": .array(try await service.tokens().map(\.json))])
            },
            endpoint(.POST, "/tokens") { request in
                let body = try await request.json().root
                let token = try await service.createToken(
                    body["token"]?.string, usesAllowed: body["uses_allowed"]?.integer,
                    expiresTS: body["expires_ts"]?.integer)
                return .json(token.json)
            },
            endpoint(.DELETE, "/tokens/{token}") { request in
                try await service.revokeToken(request["token"])
                return .json([:])
            },
        ]
    }
}

extension JSONDocument {
    fileprivate func text(_ key: String) throws -> String {
        guard let text = root[key]?.string else { throw MatrixError.missingParam(key) }
        return text
    }
}

extension AdminUser {
    fileprivate var json: JSON {
        [
            "user_id": .string(userID.string), "admin": .bool(isAdmin), "deactivated": .bool(isDeactivated),
            "created_ts": .integer(createdTS),
        ]
    }
}

extension AdminToken {
    fileprivate var json: JSON {
        [
            "token": .string(token), "uses_allowed": usesAllowed.map { .integer($0) } ?? .null,
            "completed": .integer(completed), "expires_ts": expiresTS.map { .integer($0) } ?? .null,
        ]
    }
}
