/// The policy server that a room has (Client-Server API, `m.room.policy`; Server-Server API, "Policy Servers"): it recommends events by
/// signing them with a key that stands in the room's state.
public struct RoomPolicy: Sendable {
    public let server: ServerName
    /// Nil if what the room says is no key: then nothing is recommended.
    public let key: VerifyKey?

    /// The ID of the key, whatever the server's own keys are called.
    public static let keyID = "ed25519:policy_server"

    /// - Parameter event: the room's `m.room.policy`.
    /// - Returns: nil if it names no policy server. Whether that server is in the room is for the caller to find out.
    public init?(event: Event?) {
        guard let content = event?.content, let via = content["via"]?.string, let server = ServerName(via),
            let key = content["public_keys"]?["ed25519"]?.string
        else { return nil }
        self.server = server
        self.key = Base64.decode(key).flatMap { VerifyKey(keyID: Self.keyID, publicKey: $0) }
    }

    /// Whether the event may be in the room as far as the policy server is concerned: it has signed it, or isn't asked.
    public func recommends(_ event: Event) -> Bool {
        if event.stateMapKey == .policy { return true }
        return key.map { event.verify(signatureOf: server, with: $0) } ?? false
    }
}
