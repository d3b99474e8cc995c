/// An application service as its registration file describes it (Application Service API, "Registration").
public struct AppserviceRegistration: Sendable, Hashable {
    /// A set of identifiers that an application service cares for.
    public struct Namespace: Sendable, Hashable {
        public let isExclusive: Bool
        public let pattern: NamespacePattern

        public init(isExclusive: Bool, pattern: NamespacePattern) {
            self.isExclusive = isExclusive
            self.pattern = pattern
        }
    }

    public let id: String
    /// Where it is reached; nil if nothing is to be sent to it.
    public let url: String?
    /// The token with which it speaks to this server.
    public let asToken: String
    /// The token with which this server speaks to it.
    public let hsToken: String
    public let senderLocalpart: String
    /// Whether the users it speaks for are limited as others are.
    public let isRateLimited: Bool
    public let users: [Namespace]
    public let aliases: [Namespace]
    public let rooms: [Namespace]
    /// The third-party protocols it serves.
    public let protocols: [String]
    public let receivesEphemeral: Bool

    public init(
        id: String, url: String? = nil, asToken: String, hsToken: String, senderLocalpart: String,
        isRateLimited: Bool = true, users: [Namespace] = [], aliases: [Namespace] = [], rooms: [Namespace] = [],
        protocols: [String] = [], receivesEphemeral: Bool = false
    ) {
        self.id = id
        self.url = url
        self.asToken = asToken
        self.hsToken = hsToken
        self.senderLocalpart = senderLocalpart
        self.isRateLimited = isRateLimited
        self.users = users
        self.aliases = aliases
        self.rooms = rooms
        self.protocols = protocols
        self.receivesEphemeral = receivesEphemeral
    }
}
