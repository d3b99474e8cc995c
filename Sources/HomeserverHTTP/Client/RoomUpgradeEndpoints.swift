import Homeserver
import MatrixCore

/// Moving rooms to other versions (Client-Server API, "Room Upgrades").
extension ClientAPI {
    var roomUpgradeEndpoints: [Endpoint] {
        [
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0}/rooms/{roomId}/upgrade", authentication: .accessToken,
                rateLimit: .join
            ) { request in
                let body = try await request.json().root
                let creators = try (body.optionalStrings("additional_creators") ?? []).map { try UserID.parse($0) }
                let replacement = try await self.homeserver.creation.upgrade(
                    try request.roomID(), to: try body.requiredString("new_version"), additionalCreators: creators,
                    by: try request.authenticated())
                return .json(["replacement_room": .string(replacement.string)])
            }
        ]
    }
}
