import Homeserver
import MatrixCore

/// E-mail addresses and telephone numbers of people (Client-Server API, "Adding Account Administrative Contact Information"). This
/// server sends no mail and no messages to telephones, so that nobody has any: the capability `m.3pid_changes` says so, and
/// clients that try all the same are told what the specification has for it.
extension ClientAPI {
    private static let denied = MatrixError(
        .threepidDenied, "This server keeps no e-mail addresses and telephone numbers.")

    var contactEndpoints: [Endpoint] {
        let contacts = "/_matrix/client/{version:v3|r0}/account/3pid"
        return [
            Endpoint(.GET, PathPattern(contacts), authentication: .accessToken) { _ in .json(["threepids": []]) },
            Endpoint(.POST, PathPattern(contacts), authentication: .accessToken) { request in
                let body = try await request.json().root
                guard let credentials = try body.optionalObject("three_pid_creds") else {
                    throw MatrixError.missingParam("three_pid_creds")
                }
                for name in ["client_secret", "id_server", "id_access_token", "sid"] {
                    _ = try credentials.requiredString(name)
                }
                throw Self.denied
            },
            Endpoint(.POST, PathPattern("\(contacts)/add"), authentication: .accessToken) { request in
                let body = try await request.json().root
                for name in ["client_secret", "sid"] { _ = try body.requiredString(name) }
                if let auth = try body.optionalObject("auth") {
                    for name in ["type", "session"] { _ = try auth.optionalString(name) }
                }
                throw Self.denied
            },
            Endpoint(.POST, PathPattern("\(contacts)/bind"), authentication: .accessToken) { request in
                let body = try await request.json().root
                for name in ["client_secret", "id_server", "id_access_token", "sid"] {
                    _ = try body.requiredString(name)
                }
                throw Self.denied
            },
            removal(PathPattern("\(contacts)/delete")), removal(PathPattern("\(contacts)/unbind")),
            validation("\(contacts)/email", Self.denied, .none, ["email"]),
            validation("\(contacts)/msisdn", Self.denied, .none, ["country", "phone_number"]),
            validation("/_matrix/client/{version:v3|r0}/register/email", Self.denied, .none, ["email"]),
            validation(
                "/_matrix/client/{version:v3|r0}/register/msisdn", Self.denied, .none, ["country", "phone_number"]),
            validation("/_matrix/client/{version:v3|r0}/account/password/email", Self.nobodys, .none, ["email"]),
            validation(
                "/_matrix/client/{version:v3|r0}/account/password/msisdn", Self.nobodys, .none,
                ["country", "phone_number"]),
        ]
    }

    private static let nobodys = MatrixError(
        .threepidNotFound, "No account here has this address; ask whoever runs this server for a new password.")

    /// Nothing is bound here, and no identity server known where it might be.
    private func removal(_ path: PathPattern) -> Endpoint {
        Endpoint(.POST, path, authentication: .accessToken) { request in
            let body = try await request.json().root
            for name in ["medium", "address"] { _ = try body.requiredString(name) }
            guard ["email", "msisdn"].contains(try body.requiredString("medium")) else {
                throw MatrixError.invalidParam("“medium” must be email or msisdn.")
            }
            _ = try body.optionalString("id_server")
            return .json(["id_server_unbind_result": "no-support"])
        }
    }

    private func validation(
        _ path: String, _ refusal: MatrixError, _ authentication: Endpoint.Authentication, _ required: [String]
    ) -> Endpoint {
        Endpoint(
            .POST, PathPattern("\(path)/requestToken"), authentication: authentication, rateLimit: .login
        ) { request in
            let body = try await request.json().root
            for name in ["client_secret"] + required { _ = try body.requiredString(name) }
            guard try body.optionalInteger("send_attempt") != nil else {
                throw MatrixError.missingParam("send_attempt")
            }
            for name in ["next_link", "id_server", "id_access_token"] { _ = try body.optionalString(name) }
            throw refusal
        }
    }
}
