import MatrixCore

/// All settings of a server, checked and complete; a value like any other.
///
/// How they are read from a file, the environment and the command line, and what each of them means to the person who
/// sets it, is told in one place: `ConfigurationKey` in the executable.
public struct Configuration: Sendable, Hashable {
    /// What comes after the colon in the identifiers of users and rooms; can never change.
    public var serverName = ServerName(unchecked: "localhost")
    /// Where clients reach the server, without a slash at the end: for well-known documents and links.
    public var publicBaseURL = "http://localhost:8008"
    /// The directory of everything that has no path of its own, of the lock and of the command line's socket.
    public var dataPath = "data"
    /// A file that seeds the database's signing key.
    public var signingKeyPath = "data/signing.key"
    /// The version of rooms whose creator doesn't ask for one.
    public var defaultRoomVersion = RoomVersion.default.identifier
    public var database = DatabaseLocation.sqlite(path: "data/roost.db")
    public var media = Media()
    public var listeners = [Listener()]
    /// Proxies whose `X-Forwarded-For` counts.
    public var trustedProxies: [AddressRange] = []
    public var registration = Registration()
    public var federation = Federation()
    public var policyServer = PolicyServer()
    public var outgoing = Outgoing()
    public var rateLimits = RateLimits()
    public var presence = Presence()
    public var threads = Threads()
    public var appservices: [AppserviceRegistration] = []
    public var support = Support()
    public var redactions = Redactions()
    public var turn = Turn()
    public var log = Log()

    public init() {}

    /// Where the data are.
    public enum DatabaseLocation: Sendable, Hashable {
        case sqlite(path: String)
        /// A URL of libpq: `postgresql://user:password@host:port/name`.
        case postgresql(url: String)
    }

    public struct Media: Sendable, Hashable {
        public var path = "data/media"
        /// Bytes of one file.
        public var maxUploadSize = 100 * 1024 * 1024
        /// Bytes of one file of another server; nil: as many as of one that is uploaded here.
        public var maxRemoteSize: Int?
        /// Seconds for which files of other servers are kept; nil: until they are purged.
        public var keepRemote: Int?
        /// Files uploaded before this time, in milliseconds since 1970, are also served without an access token.
        public var unauthenticatedBefore: Int64?
        public init() {}
    }

    /// An address where the server listens.
    public struct Listener: Sendable, Hashable {
        public enum API: String, Sendable, Hashable, CaseIterable {
            case client, federation, admin, health
        }

        public struct TLS: Sendable, Hashable {
            public var certificate: String
            public var key: String

            public init(certificate: String, key: String) {
                self.certificate = certificate
                self.key = key
            }
        }

        /// An IP address or host name, or `unix:` and the path of a socket.
        public var address: String
        /// Without meaning for a Unix socket.
        public var port: Int
        public var tls: TLS?
        public var serve: [API]

        public init(
            address: String = "127.0.0.1", port: Int = 8008, tls: TLS? = nil, serve: [API] = API.allCases
        ) {
            self.address = address
            self.port = port
            self.tls = tls
            self.serve = serve
        }
    }

    public struct Registration: Sendable, Hashable {
        public enum Mode: String, Sendable, Hashable, CaseIterable {
            /// Anyone may make an account.
            case open
            /// Whoever has a registration token may.
            case token
            /// Accounts are made on the command line only.
            case closed
        }

        public var mode = Mode.closed
        /// The secret of `/_synapse/admin/v1/register`; without it that endpoint isn't there.
        public var sharedSecret: String?
        public var guests = false
        /// How long an access token is good for, in seconds, where the client can renew it.
        public var tokenLifetime = 60 * 60
        /// What people must accept when they make an account; one entry for each language of each document.
        public var terms: [Terms] = []
        public init() {}

        /// A document in a language.
        public struct Terms: Sendable, Hashable {
            public var policy: String
            public var version: String
            public var language: String
            public var name: String
            public var url: String

            public init(policy: String, version: String, language: String, name: String, url: String) {
                self.policy = policy
                self.version = version
                self.language = language
                self.name = name
                self.url = url
            }
        }
    }

    /// Whom people turn to (Client-Server API, `GET /.well-known/matrix/support`).
    public struct Support: Sendable, Hashable {
        public struct Contact: Sendable, Hashable {
            public var role: String
            public var matrixID: String?
            public var emailAddress: String?

            public init(role: String, matrixID: String? = nil, emailAddress: String? = nil) {
                self.role = role
                self.matrixID = matrixID
                self.emailAddress = emailAddress
            }
        }

        public var contacts: [Contact] = []
        public var page: String?
        public init() {}
    }

    public struct Federation: Sendable, Hashable {
        public var enabled = true
        public var verifyCertificates = true
        /// Files with certificate authorities to trust besides the system's.
        public var caCertificates: [String] = []
        /// Where other servers reach this one, as `/.well-known/matrix/server` says; nil: it says nothing.
        public var publicAddress: ServerName?
        /// Servers that are believed about the keys of others which can't be reached.
        public var keyServers: [ServerName] = []
        /// Addresses that are never connected to; nil: private ranges.
        public var ipDenylist: [AddressRange]?
        /// Rooms of at least so many servers are used before all their members are known; no setting, for tests.
        public var partialFrom = 20
        public init() {}
    }

    /// What rooms may have this server do that name it as their policy server.
    public struct PolicyServer: Sendable, Hashable {
        public var enabled = false
        /// Rooms that are policy lists.
        public var lists: [RoomID] = []
        public init() {}
    }

    /// Connections to others than homeservers: push, identity, previews.
    public struct Outgoing: Sendable, Hashable {
        /// Addresses that are never connected to; nil: private ranges.
        public var ipDenylist: [AddressRange]?
        public init() {}
    }

    public struct RateLimits: Sendable, Hashable {
        public var enabled = true
        public init() {}
    }

    public struct Presence: Sendable, Hashable {
        public var enabled = true
        public init() {}
    }

    public struct Threads: Sendable, Hashable {
        /// Whether messages in threads notify those who follow the thread, and of the others only whom they mention (MSC4306).
        public var notifyFollowersOnly = false
        public init() {}
    }

    public struct Redactions: Sendable, Hashable {
        /// How long what was redacted is kept, in seconds.
        public var keepFor = 7 * 24 * 60 * 60
        public init() {}
    }

    /// A TURN server for calls.
    public struct Turn: Sendable, Hashable {
        public var uris: [String] = []
        public var sharedSecret: String?
        /// How long credentials are valid, in seconds.
        public var lifetime = 24 * 60 * 60
        public init() {}
    }

    public struct Log: Sendable, Hashable {
        public enum Level: String, Sendable, Hashable, CaseIterable {
            case trace, debug, info, notice, warning, error, critical
        }

        public enum Format: String, Sendable, Hashable, CaseIterable {
            /// Lines for people.
            case text
            /// One JSON object a line.
            case json
        }

        public var level = Level.info
        public var format = Format.text
        public init() {}
    }
}
