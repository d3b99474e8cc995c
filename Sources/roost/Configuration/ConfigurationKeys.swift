import Homeserver
import MatrixCore

/// A setting: its path, what it means, and how it is read. The example file, the table of the README, the names of the
/// environment variables and the look-up of keys are all made from this one list.
struct ConfigurationKey: Sendable {
    typealias Setter = @Sendable (inout Configuration, ConfigurationValue) throws(ValueProblem) -> Void

    /// `section.key`, or a key without section.
    let path: String
    /// The default as YAML, as it stands in the example file.
    let standard: String
    /// What it means, for the person who sets it.
    let meaning: String
    let set: Setter

    init(_ path: String, _ standard: String, _ meaning: String, set: @escaping Setter) {
        self.path = path
        self.standard = standard
        self.meaning = meaning
        self.set = set
    }

    /// `ROOST_` and the path in upper case with `_` for dots.
    var environmentName: String { "ROOST_" + path.uppercased().replacing(".", with: "_") }

    static let all: [ConfigurationKey] = server + storage + listening + people + network + operation

    private static let server = [
        ConfigurationKey(
            "server_name", "localhost",
            "What comes after the colon in @user:server. It can never be changed once there are accounts."
        ) { configuration, value throws(ValueProblem) in
            let text = try value.text("a server name, such as example.org")
            guard let name = ServerName(text) else {
                throw value.problem(
                    "“\(text)” is not a server name; write a host name such as example.org, without https:// and slashes"
                )
            }
            configuration.serverName = name
        },
        ConfigurationKey(
            "public_base_url", "null",
            "Where clients reach this server, such as https://chat.example.org. null: https:// and the server name."
        ) { configuration, value throws(ValueProblem) in
            guard !value.node.isNull else {
                configuration.publicBaseURL = ""
                return
            }
            let text = try value.text("a URL, such as https://chat.example.org")
            let host =
                text.hasPrefix("https://") ? text.dropFirst(8) : text.hasPrefix("http://") ? text.dropFirst(7) : ""
            guard !host.isEmpty, !host.hasPrefix("/"), !text.contains(where: { " ?#\"<>".contains($0) }) else {
                throw value.problem("“\(text)” is not the URL of a server; write it like https://chat.example.org")
            }
            configuration.publicBaseURL = text.hasSuffix("/") ? String(text.dropLast()) : text
        },
        ConfigurationKey(
            "default_room_version", "\"\(RoomVersion.default.identifier)\"",
            "The version of rooms whose creator doesn't ask for one."
        ) { configuration, value throws(ValueProblem) in
            let text = try value.text("a room version")
            guard RoomVersion.named(text) != nil else {
                let known = RoomVersion.all.map(\.identifier).joined(separator: ", ")
                throw value.problem("“\(text)” is not a room version of this server; there are \(known)")
            }
            configuration.defaultRoomVersion = text
        },
    ]

    private static let storage = [
        ConfigurationKey(
            "data_path", "data",
            "The directory of everything that has no path of its own, and of the command line's socket."
        ) { configuration, value throws(ValueProblem) in configuration.dataPath = try value.path() },
        ConfigurationKey(
            "signing_key_path", "data/signing.key",
            "The key that signs this server's events. It seeds the database; made when there is none."
        ) { configuration, value throws(ValueProblem) in configuration.signingKeyPath = try value.path() },
        ConfigurationKey(
            "database.url", "sqlite:data/roost.db",
            "Where everything is stored: sqlite:PATH, or postgresql://user:password@host:port/name."
        ) { configuration, value throws(ValueProblem) in
            let text = try value.text("the URL of a database, such as sqlite:data/roost.db")
            if let path = text.dropping(prefix: "sqlite://") ?? text.dropping(prefix: "sqlite:"), !path.isEmpty {
                configuration.database = .sqlite(path: Paths.resolve(path, from: value.base))
            } else if text.hasPrefix("postgresql://") || text.hasPrefix("postgres://") {
                configuration.database = .postgresql(url: text)
            } else {
                // The URL isn't repeated: it may hold a password.
                throw value.problem(
                    "this is not the URL of a database; write sqlite:PATH or postgresql://user:password@host:port/name")
            }
        },
        ConfigurationKey("media.path", "data/media", "The directory of uploaded and cached files.") {
            configuration, value throws(ValueProblem) in configuration.media.path = try value.path()
        },
        ConfigurationKey("media.max_upload_size", "100MiB", "The largest file that people may upload.") {
            configuration, value throws(ValueProblem) in configuration.media.maxUploadSize = try value.size()
        },
        ConfigurationKey(
            "media.max_remote_size", "null",
            "The largest file of another server that is fetched. null: as large as people may upload."
        ) { configuration, value throws(ValueProblem) in
            configuration.media.maxRemoteSize = try value.optional { value throws(ValueProblem) in try value.size() }
        },
        ConfigurationKey(
            "media.keep_remote", "null",
            """
            How long files of other servers are kept, such as 90d; who wants them later has them fetched again. null: until \
            they are removed by roost media purge.
            """
        ) { configuration, value throws(ValueProblem) in
            configuration.media.keepRemote = try value.optional { value throws(ValueProblem) in try value.seconds() }
        },
        ConfigurationKey(
            "media.unauthenticated_before", "null",
            """
            Files uploaded before this date, such as 2026-09-01, are also served to clients that send no access token; newer \
            ones never are. null: none are.
            """
        ) { configuration, value throws(ValueProblem) in
            configuration.media.unauthenticatedBefore = try value.optional { value throws(ValueProblem) in
                try value.date()
            }
        },
    ]

    private static let listening = [
        ConfigurationKey(
            "listeners", "[{ address: 127.0.0.1, port: 8008, tls: null, serve: [client, federation, admin, health] }]",
            """
            Where the server listens: address (or unix:/path), port, tls (null, or certificate and key: paths of PEM files) \
            and serve, the APIs that are reached there.
            """
        ) { configuration, value throws(ValueProblem) in
            configuration.listeners = try value.list { value throws(ValueProblem) in try listener(value) }
            guard !configuration.listeners.isEmpty else {
                throw value.problem("without a listener nobody reaches the server; write at least one")
            }
        },
        ConfigurationKey(
            "trusted_proxies", "[]",
            "Addresses or blocks of reverse proxies; only their X-Forwarded-For says where a request comes from."
        ) { configuration, value throws(ValueProblem) in
            configuration.trustedProxies = try value.list { value throws(ValueProblem) in try value.range() }
        },
    ]

    private static func listener(_ value: ConfigurationValue) throws(ValueProblem) -> Configuration.Listener {
        let members = try value.members(["address", "port", "tls", "serve"])
        var listener = Configuration.Listener()
        do {
            if let address = members["address"] {
                let text = try address.text("an IP address, a host name or unix:/path")
                let path = text.dropping(prefix: "unix:")
                listener.address = path.map { "unix:" + Paths.resolve($0, from: value.base) } ?? text
            }
        } catch { throw error.within("address") }
        do { if let port = members["port"] { listener.port = try port.integer(in: 0...65535) } } catch {
            throw error.within("port")
        }
        do { listener.tls = try members["tls"]?.optional { value throws(ValueProblem) in try tls(value) } } catch {
            throw error.within("tls")
        }
        do {
            if let serve = members["serve"] {
                listener.serve = try serve.list { value throws(ValueProblem) in
                    try value.choice(Configuration.Listener.API.self)
                }
            }
        } catch { throw error.within("serve") }
        return listener
    }

    private static func tls(_ value: ConfigurationValue) throws(ValueProblem) -> Configuration.Listener.TLS {
        let members = try value.members(["certificate", "key"])
        guard let certificate = members["certificate"], let key = members["key"] else {
            throw value.problem("it needs a certificate and a key; write { certificate: tls.crt, key: tls.key }")
        }
        return .init(certificate: try certificate.path(), key: try key.path())
    }

    private static let people = [
        ConfigurationKey(
            "registration.mode", "closed",
            "Who may make an account: open (anyone), token (whoever has a registration token), closed (you, by `roost user create`)."
        ) { configuration, value throws(ValueProblem) in
            configuration.registration.mode = try value.choice(Configuration.Registration.Mode.self)
        },
        ConfigurationKey(
            "registration.shared_secret", "null",
            "The secret for making accounts by /_synapse/admin/v1/register. null: that way is closed."
        ) { configuration, value throws(ValueProblem) in
            configuration.registration.sharedSecret = try value.optional { value throws(ValueProblem) in
                try value.text("a secret")
            }
        },
        ConfigurationKey("registration.guests", "false", "Whether guests may look around without an account.") {
            configuration, value throws(ValueProblem) in configuration.registration.guests = try value.truth()
        },
        ConfigurationKey(
            "registration.token_lifetime", "1h",
            "How long an access token is good for where the client can renew it; others don't expire."
        ) { configuration, value throws(ValueProblem) in
            let seconds = try value.seconds()
            guard seconds >= 60 else {
                throw value.problem("clients would do little else than renew it; write at least 1m")
            }
            configuration.registration.tokenLifetime = seconds
        },
        ConfigurationKey(
            "registration.terms", "[]",
            """
            What people must accept when they make an account, a list of { policy: terms_of_service, version: "1", \
            language: en, name: Terms of Service, url: https://example.org/terms }; one entry for each language.
            """
        ) { configuration, value throws(ValueProblem) in
            configuration.registration.terms = try value.list { value throws(ValueProblem) in try terms(value) }
        },
        ConfigurationKey(
            "support.contacts", "[]",
            """
            Whom people and other servers turn to, a list of { role: m.role.admin, matrix_id: "@me:example.org", \
            email_address: me@example.org }; roles are m.role.admin, m.role.security or one of your own.
            """
        ) { configuration, value throws(ValueProblem) in
            configuration.support.contacts = try value.list { value throws(ValueProblem) in try contact(value) }
        },
        ConfigurationKey("support.page", "null", "The URL of a page that helps people with this server.") {
            configuration, value throws(ValueProblem) in
            configuration.support.page = try value.optional { value throws(ValueProblem) in try value.webAddress() }
        },
        ConfigurationKey(
            "policy_server.enabled", "false",
            "Whether rooms may name this server as their policy server: it then signs what its lists have nothing against."
        ) { configuration, value throws(ValueProblem) in configuration.policyServer.enabled = try value.truth() },
        ConfigurationKey(
            "policy_server.lists", "[]",
            "IDs of the policy list rooms that it goes by. Somebody of this server has to be in each."
        ) { configuration, value throws(ValueProblem) in
            configuration.policyServer.lists = try value.list { value throws(ValueProblem) in
                guard let room = RoomID(try value.text("a room's ID")) else {
                    throw value.problem("must be a room's ID")
                }
                return room
            }
        },
        ConfigurationKey("presence.enabled", "true", "Whether people see who is online.") {
            configuration, value throws(ValueProblem) in configuration.presence.enabled = try value.truth()
        },
        ConfigurationKey(
            "threads.notify_followers_only", "false",
            """
            Whether messages in a thread notify those who follow the thread, always, and of the others only whom they mention \
            (MSC4306). Leave it off while people use clients that don't know of it: nothing follows threads for them.
            """
        ) { configuration, value throws(ValueProblem) in
            configuration.threads.notifyFollowersOnly = try value.truth()
        },
        ConfigurationKey(
            "redactions.keep_for", "7d",
            "How long the content of redacted messages stays in the database, unseen, before it is overwritten."
        ) { configuration, value throws(ValueProblem) in configuration.redactions.keepFor = try value.seconds() },
        ConfigurationKey("turn.uris", "[]", "The TURN server that carries calls, such as turn:turn.example.org.") {
            configuration, value throws(ValueProblem) in
            configuration.turn.uris = try value.list { value throws(ValueProblem) in
                let text = try value.text("a turn: or turns: URI")
                guard text.hasPrefix("turn:") || text.hasPrefix("turns:") else {
                    throw value.problem("“\(text)” is not a TURN server; write it like turn:turn.example.org")
                }
                return text
            }
        },
        ConfigurationKey("turn.shared_secret", "null", "The secret that the TURN server shares with this one.") {
            configuration, value throws(ValueProblem) in
            configuration.turn.sharedSecret = try value.optional { value throws(ValueProblem) in
                try value.text("a secret")
            }
        },
        ConfigurationKey("turn.lifetime", "1d", "How long credentials for the TURN server are valid.") {
            configuration, value throws(ValueProblem) in configuration.turn.lifetime = try value.seconds()
        },
    ]

    private static func terms(
        _ value: ConfigurationValue
    ) throws(ValueProblem) -> Configuration.Registration.Terms {
        let members = try value.members(["policy", "version", "language", "name", "url"])
        guard let policy = members["policy"], let version = members["version"], let name = members["name"],
            let url = members["url"]
        else { throw value.problem("it needs a policy, a version, a name and a url") }
        return .init(
            policy: try policy.text("the ID of a policy, such as privacy_policy"),
            version: try version.text("a version"), language: try members["language"]?.text("a language") ?? "en",
            name: try name.text("the name of a document"), url: try url.webAddress())
    }

    private static func contact(
        _ value: ConfigurationValue
    ) throws(ValueProblem) -> Configuration.Support.Contact {
        let members = try value.members(["role", "matrix_id", "email_address"])
        guard let role = members["role"], members["matrix_id"] != nil || members["email_address"] != nil else {
            throw value.problem("it needs a role, and a matrix_id or an email_address")
        }
        var contact = Configuration.Support.Contact(role: try role.text("a role, such as m.role.admin"))
        if let matrixID = members["matrix_id"] {
            let text = try matrixID.text("a user ID, such as @me:example.org")
            guard UserID(text) != nil else {
                throw matrixID.problem("“\(text)” is not a user ID, such as @me:example.org")
            }
            contact.matrixID = text
        }
        contact.emailAddress = try members["email_address"]?.text("an e-mail address")
        return contact
    }

    private static let network = [
        ConfigurationKey("federation.enabled", "true", "Whether this server talks to other servers.") {
            configuration, value throws(ValueProblem) in configuration.federation.enabled = try value.truth()
        },
        ConfigurationKey(
            "federation.verify_certificates", "true",
            "Whether other servers must have valid certificates; false is for tests."
        ) { configuration, value throws(ValueProblem) in
            configuration.federation.verifyCertificates = try value.truth()
        },
        ConfigurationKey(
            "federation.ca_certificates", "[]", "Files with certificate authorities to trust besides the system's."
        ) { configuration, value throws(ValueProblem) in
            configuration.federation.caCertificates = try value.list { value throws(ValueProblem) in try value.path() }
        },
        ConfigurationKey(
            "federation.public_address", "null",
            "Where other servers reach this one, such as chat.example.org:443, if not at port 8448 of the server name: what /.well-known/matrix/server says."
        ) { configuration, value throws(ValueProblem) in
            configuration.federation.publicAddress = try value.optional { value throws(ValueProblem) in
                guard let name = ServerName(try value.text("a server's name")) else {
                    throw value.problem("must be a server's name, with a port if it has one")
                }
                return name
            }
        },
        ConfigurationKey(
            "federation.key_servers", "[]",
            "Servers that are believed about the keys of others which can't be reached, such as matrix.org."
        ) { configuration, value throws(ValueProblem) in
            configuration.federation.keyServers = try value.list { value throws(ValueProblem) in
                guard let name = ServerName(try value.text("a server's name")) else {
                    throw value.problem("must be a server's name")
                }
                return name
            }
        },
        ConfigurationKey(
            "federation.ip_denylist", "null",
            "Addresses or blocks that other servers may not have. null: private ones; []: none are denied."
        ) { configuration, value throws(ValueProblem) in
            configuration.federation.ipDenylist = try value.optional { value throws(ValueProblem) in
                try value.list { value throws(ValueProblem) in try value.range() }
            }
        },
        ConfigurationKey(
            "outgoing.ip_denylist", "null",
            "The same for push, identity servers, previews and mail. When absent it is as for federation."
        ) { configuration, value throws(ValueProblem) in
            configuration.outgoing.ipDenylist = try value.optional { value throws(ValueProblem) in
                try value.list { value throws(ValueProblem) in try value.range() }
            }
        },
        ConfigurationKey("appservices", "[]", "Registration files of bridges and bots (application services).") {
            configuration, value throws(ValueProblem) in
            configuration.appservices = try value.list { value throws(ValueProblem) in
                let path = try value.path()
                do throws(AppserviceFile.Failure) { return try AppserviceFile.read(path) } catch {
                    throw value.problem(error.reason)
                }
            }
            let registrations = configuration.appservices
            // Application Service API, "Registration": by these an application service is known.
            for (name, all) in [("id", registrations.map(\.id)), ("as_token", registrations.map(\.asToken))]
            where Set(all).count < all.count {
                throw value.problem("two of the registration files have the same \(name); each needs one of its own")
            }
        },
    ]

    private static let operation = [
        ConfigurationKey("rate_limits.enabled", "true", "Whether requests of one person or address are limited.") {
            configuration, value throws(ValueProblem) in configuration.rateLimits.enabled = try value.truth()
        },
        ConfigurationKey(
            "log.level", "info",
            "How much is logged: trace, debug, info, notice, warning, error or critical. SIGHUP reloads it."
        ) { configuration, value throws(ValueProblem) in
            configuration.log.level = try value.choice(Configuration.Log.Level.self)
        },
        ConfigurationKey("log.format", "text", "text for people, json for programs.") {
            configuration, value throws(ValueProblem) in
            configuration.log.format = try value.choice(Configuration.Log.Format.self)
        },
    ]
}

extension String {
    func dropping(prefix: String) -> String? {
        hasPrefix(prefix) ? String(dropFirst(prefix.count)) : nil
    }
}
