import Crypto
import MatrixCore

/// Short-lived credentials for the TURN server of the configuration (Client-Server API, module "Voice over IP"): user name and
/// password that the TURN server can check with the secret that both know.
public struct TurnCredentials: Sendable {
    public let json: JSON

    /// nil if no TURN server is configured.
    init?(_ turn: Configuration.Turn, for user: UserID, now: Int64) {
        guard !turn.uris.isEmpty, let secret = turn.sharedSecret else { return nil }
        let name = "\(now / 1_000 + Int64(turn.lifetime)):\(user)"
        let key = SymmetricKey(data: Array(secret.utf8))
        let code = HMAC<Insecure.SHA1>.authenticationCode(for: Array(name.utf8), using: key)
        var password = Base64.encode(Array(code))
        while password.utf8.count % 4 != 0 { password += "=" }
        json = [
            "username": .string(name), "password": .string(password), "uris": .array(turn.uris.map { .string($0) }),
            "ttl": .integer(Int64(turn.lifetime)),
        ]
    }
}

extension Homeserver {
    /// What a client needs to relay calls; an empty object if there is no relay.
    public func turnCredentials(for requester: Requester) -> JSON {
        TurnCredentials(configuration.turn, for: requester.userID, now: surroundings.now())?.json ?? [:]
    }
}
