import Homeserver
import NIOHTTP1

/// What accounts may do that are not like others. Operations are named by method and path after the API's version, as the
/// specification names them; the lists can be read beside it. What isn't listed is refused, so that a new endpoint is too.
enum AccountRestrictions {
    /// - Throws: `M_USER_LOCKED`, `M_USER_SUSPENDED`, `M_GUEST_ACCESS_FORBIDDEN`.
    static func check(_ requester: Requester, _ endpoint: Endpoint) throws {
        guard !requester.standing.isEmpty else { return }
        let names = endpoint.patterns.map { name(endpoint.method, $0) }
        if requester.isLocked, !names.contains(where: locked.contains) { throw MatrixError.userLocked }
        if requester.isGuest, !names.contains(where: guests.contains) { throw MatrixError.guestsForbidden }
        if requester.isSuspended, endpoint.method != .GET, !names.contains(where: suspended.contains) {
            throw MatrixError.userSuspended
        }
    }

    /// `PUT /rooms/{roomId}/send/{eventType}/{txnId}`.
    static func name(_ method: HTTPMethod, _ pattern: PathPattern) -> String {
        // Of `{kind:override|content}` the name alone.
        let segments = pattern.description.split(separator: "/", omittingEmptySubsequences: false).map { segment in
            segment.hasPrefix("{") ? segment.prefix { $0 != ":" && $0 != "}" } + "}" : String(segment)
        }
        let isClient = segments.count > 4 && segments[1] == "_matrix" && segments[2] == "client"
        return "\(method.rawValue) /\(segments.dropFirst(isClient ? 4 : 1).joined(separator: "/"))"
    }

    /// Client-Server API, "Account locking".
    static let locked: Set<String> = ["POST /logout", "POST /logout/all"]

    /// Client-Server API, "Guest Access", client behaviour; and what no client can do without.
    static let guests: Set<String> = [
        "GET /rooms/{roomId}/state", "GET /rooms/{roomId}/context/{eventId}", "GET /rooms/{roomId}/event/{eventId}",
        "GET /rooms/{roomId}/state/{eventType}/{stateKey}", "GET /rooms/{roomId}/messages",
        "GET /rooms/{roomId}/members", "GET /rooms/{roomId}/initialSync", "GET /sync", "GET /events",
        "GET /media/download/{serverName}/{mediaId}", "GET /media/download/{serverName}/{mediaId}/{fileName}",
        "GET /media/thumbnail/{serverName}/{mediaId}",

        "POST /rooms/{roomId}/join", "POST /rooms/{roomId}/leave", "PUT /rooms/{roomId}/send/{eventType}/{txnId}",
        "PUT /rooms/{roomId}/state/{eventType}/{stateKey}", "PUT /sendToDevice/{eventType}/{txnId}",

        "PUT /profile/{userId}/{keyName}", "DELETE /profile/{userId}/{keyName}", "GET /devices",
        "GET /devices/{deviceId}", "PUT /devices/{deviceId}", "GET /account/whoami",

        "POST /keys/upload", "POST /keys/query", "POST /keys/claim",

        // Not in that list: open to those who aren't signed in at all, or without effect on anybody else.
        "POST /join/{roomIdOrAlias}", "POST /logout", "POST /logout/all", "GET /_matrix/client/versions",
        "GET /capabilities",
        "GET /profile/{userId}", "GET /profile/{userId}/{keyName}", "GET /directory/room/{roomAlias}",
        "GET /publicRooms", "POST /user/{userId}/filter", "GET /user/{userId}/filter/{filterId}", "GET /pushrules/",
        "GET /media/config", "GET /voip/turnServer", "GET /room_summary/{roomIdOrAlias}",
        "POST /org.matrix.simplified_msc3575/sync",

        // MSC4140, "Guest accounts".
        "PUT /org.matrix.msc4140/rooms/{roomId}/delayed_event/{eventType}/{txnId}",
        "GET /org.matrix.msc4140/delayed_events", "GET /org.matrix.msc4140/delayed_events/{delayId}",
        "POST /org.matrix.msc4140/delayed_events/{delayId}",
        "POST /org.matrix.msc4140/delayed_events/{delayId}/{action}",
    ]

    /// Client-Server API, "Account suspension": besides reading, what the specification says should be possible, and notes for
    /// oneself. Which events may be sent or redacted is told by ``checkMaySend(_:by:)``.
    static let suspended: Set<String> = [
        "POST /logout", "POST /logout/all", "PUT /devices/{deviceId}", "DELETE /devices/{deviceId}",
        "POST /delete_devices", "POST /account/password", "POST /account/deactivate", "POST /login/get_token",
        "POST /rooms/{roomId}/leave", "POST /rooms/{roomId}/forget",
        "PUT /rooms/{roomId}/redact/{eventId}/{txnId}", "PUT /rooms/{roomId}/send/{eventType}/{txnId}",

        "POST /rooms/{roomId}/receipt/{receiptType}/{eventId}", "POST /rooms/{roomId}/read_markers",
        "POST /user/{userId}/filter", "PUT /user/{userId}/account_data/{type}",
        "PUT /user/{userId}/rooms/{roomId}/account_data/{type}", "PUT /user/{userId}/rooms/{roomId}/tags/{tag}",
        "DELETE /user/{userId}/rooms/{roomId}/tags/{tag}", "PUT /pushrules/global/{kind}/{ruleId}",
        "DELETE /pushrules/global/{kind}/{ruleId}", "PUT /pushrules/global/{kind}/{ruleId}/enabled",
        "PUT /pushrules/global/{kind}/{ruleId}/actions", "POST /pushers/set", "POST /search",
        "POST /user_directory/search", "POST /publicRooms",

        "POST /keys/upload", "POST /keys/query", "POST /keys/claim", "POST /keys/device_signing/upload",
        "POST /keys/signatures/upload", "PUT /sendToDevice/{eventType}/{txnId}", "PUT /room_keys/keys",
        "PUT /room_keys/keys/{roomId}", "PUT /room_keys/keys/{roomId}/{sessionId}", "DELETE /room_keys/keys",
        "DELETE /room_keys/keys/{roomId}", "DELETE /room_keys/keys/{roomId}/{sessionId}", "POST /room_keys/version",
        "PUT /room_keys/version/{backup}", "DELETE /room_keys/version/{backup}",

        // Reading, though with a body.
        "POST /org.matrix.simplified_msc3575/sync",
        // Notes for oneself.
        "PUT /io.element.msc4306/rooms/{roomId}/thread/{eventId}/subscription",
        "DELETE /io.element.msc4306/rooms/{roomId}/thread/{eventId}/subscription",
    ]
}
