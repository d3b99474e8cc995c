/// Whom a policy list wants kept out (Client-Server API, "Moderation policy lists"). Its size is bounded by that of the room's state.
public struct PolicyRules: Sendable {
    /// The types of the events. (Rules about rooms say nothing about an event in one.)
    public enum Kind: String, Sendable {
        case user = "m.policy.rule.user"
        case server = "m.policy.rule.server"
    }

    private struct Entities {
        var names: Set<ByteString> = []
        var globs: [Glob] = []

        func contain(_ name: String) -> Bool {
            names.contains(ByteString(name.lowercased())) || globs.contains { $0.matches(name) }
        }
    }

    private var users = Entities()
    private var servers = Entities()

    public init() {}

    /// Takes up a rule. One that recommends something else than `m.ban`, or that was taken back, is none.
    public mutating func add(_ kind: Kind, _ content: JSONView) {
        guard content["recommendation"]?.isString("m.ban") == true, let entity = content["entity"]?.string else {
            return
        }
        let path: WritableKeyPath<Self, Entities> = kind == .user ? \.users : \.servers
        // Most rules name somebody: those are looked up, however many there are.
        if entity.utf8.contains(where: { $0 == UInt8(ascii: "*") || $0 == UInt8(ascii: "?") }) {
            self[keyPath: path].globs.append(Glob(entity))
        } else {
            self[keyPath: path].names.insert(ByteString(entity.lowercased()))
        }
    }

    private func concern(_ user: UserID) -> Bool { users.contain(user.string) || servers.contain(user.server.host) }

    /// Whether they recommend against an event: whose sender, or whom it invites, is to be kept out. Anybody may leave, and be put out.
    public func speakAgainst(_ event: Event) -> Bool {
        let membership = event.type == "m.room.member" ? event.content["membership"] : nil
        if concern(event.sender) {
            return
                !(membership?.isString("leave") == true
                && event.stateKey.map { $0.hasSameBytes(as: event.sender.string) } == true)
        }
        guard membership?.isString("invite") == true, let user = event.stateKey.flatMap({ UserID($0) }) else {
            return false
        }
        return concern(user)
    }
}
