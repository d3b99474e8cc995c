import Homeserver
import MatrixCore

/// API versions, capabilities and well-known documents (Client-Server API, "API Standards", "Capabilities negotiation",
/// "Server Discovery").
extension ClientAPI {
    var serverEndpoints: [Endpoint] {
        [
            Endpoint(.GET, "/_matrix/client/versions", authentication: .optionalAccessToken, rateLimit: .none) { _ in
                .json([
                    "versions": .array(Self.versions.map { .string($0) }),
                    "unstable_features": .object(JSONObject(self.unstableFeatures.map { ($0, true) })),
                ])
            },
            Endpoint(.GET, "/_matrix/client/{version:v3|r0}/capabilities", authentication: .accessToken) { request in
                .json(self.capabilities(for: try request.authenticated()))
            },
            Endpoint(.GET, "/_matrix/client/{version:v3|r0}/voip/turnServer", authentication: .accessToken) { request in
                .json(self.homeserver.turnCredentials(for: try request.authenticated()))
            },
            Endpoint(.GET, "/.well-known/matrix/client", authentication: .none) { _ in
                .json(["m.homeserver": ["base_url": .string(self.homeserver.configuration.publicBaseURL)]])
            },
            // Server-Server API, "Server discovery".
            Endpoint(.GET, "/.well-known/matrix/server", authentication: .none) { _ in
                guard let address = self.homeserver.configuration.federation.publicAddress else {
                    throw MatrixError.notFound("This server is where its name says.")
                }
                return .json(["m.server": .string(address.string)])
            },
            Endpoint(.GET, "/.well-known/matrix/policy_server", authentication: .none) { _ in
                guard let policy = self.homeserver.policySigning else {
                    throw MatrixError.notFound("This server is no policy server.")
                }
                return .json(["public_keys": ["ed25519": .string(policy.publicKey)]])
            },
            Endpoint(.GET, "/.well-known/matrix/support", authentication: .none) { _ in .json(try self.support()) },
        ]
    }

    /// Whom people turn to, as the configuration has it.
    ///
    /// - Throws: `M_NOT_FOUND` if it has nobody.
    private func support() throws -> JSON {
        let support = homeserver.configuration.support
        guard !support.contacts.isEmpty || support.page != nil else {
            throw MatrixError.notFound("This server doesn't say whom to turn to.")
        }
        var answer: JSON = [:]
        if !support.contacts.isEmpty {
            answer["contacts"] = .array(
                support.contacts.map { contact in
                    var json: JSON = ["role": .string(contact.role)]
                    if let matrixID = contact.matrixID { json["matrix_id"] = .string(matrixID) }
                    if let address = contact.emailAddress { json["email_address"] = .string(address) }
                    return json
                })
        }
        if let page = support.page { answer["support_page"] = .string(page) }
        return answer
    }

    /// The versions of which all is there that a client can't do without: a test computes them from the table of facts (see
    /// `docs/versions.md`).
    private static let versions = ["r0.6.1"] + (1...19).map { "v1.\($0)" }

    /// Proposals that clients look for before they use them.
    private var unstableFeatures: [String] {
        let always = [
            "org.matrix.e2e_cross_signing", "org.matrix.msc3814", "org.matrix.simplified_msc3575",
            "org.matrix.msc4140", "org.matrix.msc4354", "org.matrix.msc4262", "org.matrix.msc4429",
        ]
        // Clients that see it take it that threads notify only those who follow them.
        return homeserver.configuration.threads.notifyFollowersOnly ? always + ["org.matrix.msc4306"] : always
    }

    private func capabilities(for requester: Requester) -> JSON {
        var available: JSON = [:]
        for version in RoomVersion.all { available[version.identifier] = "stable" }
        var capabilities: JSON = [
            "m.change_password": ["enabled": true],
            "m.set_displayname": ["enabled": true],
            "m.set_avatar_url": ["enabled": true],
            "m.profile_fields": ["enabled": true],
            "m.3pid_changes": ["enabled": false],
            "m.get_login_token": ["enabled": true],
            "org.matrix.msc4140.delayed_events": [
                "max_delay_ms": .integer(DelayedEventService.longestDelay),
                "max_scheduled": .integer(Int64(DelayedEventService.mostScheduled)),
            ],
            "m.room_versions": [
                "default": .string(homeserver.configuration.defaultRoomVersion), "available": available,
            ],
        ]
        if requester.isAdmin { capabilities["m.account_moderation"] = ["lock": true, "suspend": true] }
        return ["capabilities": capabilities]
    }
}
