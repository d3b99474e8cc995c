import Glibc
import Homeserver
import RoostTestSupport
import Testing

@testable import roost

@Suite struct ConfigurationTests {
    private func load(
        _ yaml: String? = nil, environment: [String: String] = [:], options: CommandLineSettings = .init()
    ) throws(ConfigurationProblems) -> Configuration {
        guard let yaml else {
            return try ConfigurationLoader.load(file: nil, environment: environment, options: options)
        }
        var template = Array("/tmp/roost-configuration-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        Terminal.write(yaml, to: descriptor)
        close(descriptor)
        defer { unlink(path) }
        do {
            return try ConfigurationLoader.load(file: path, environment: environment, options: options)
        } catch {
            // The random name of the file isn't part of what a test expects.
            throw ConfigurationProblems(
                error.problems.map {
                    var problem = $0
                    problem.place = problem.place.replacing(path, with: "roost.yaml")
                    return problem
                })
        }
    }

    private func problems(_ yaml: String? = nil, environment: [String: String] = [:]) -> [String] {
        do {
            _ = try load(yaml, environment: environment)
            return []
        } catch { return error.problems.map(\.description) }
    }

    @Test("without a file everything lies under the data directory")
    func defaults() throws {
        #expect(try load() == Configuration())
        let other = try load(options: CommandLineSettings(data: "/srv/roost"))
        #expect(other.database == .sqlite(path: "/srv/roost/roost.db"))
        #expect(other.signingKeyPath == "/srv/roost/signing.key")
        #expect(other.media.path == "/srv/roost/media")
        #expect(other.registration.mode == .closed)
    }

    @Test("a duration that nobody can count to is refused")
    func endlessDuration() throws {
        #expect(problems("redactions:\n  keep_for: 999999999999d") != [])
        #expect(try load("redactions:\n  keep_for: 365000d").redactions.keepFor == 365_000 * 86_400)
    }

    @Test("what Kubernetes tells of a service named like the server is no setting")
    func foreignVariables() {
        #expect(
            problems(environment: [
                "ROOST_SERVICE_HOST": "10.0.0.1", "ROOST_PORT": "tcp://10.0.0.1:8008",
                "ROOST_PORT_8008_TCP_PROTO": "tcp",
            ]) == [])
    }

    @Test("the environment is read from the process")
    func environment() {
        let variables = ProcessEnvironment.variables()
        #expect(variables["PATH"] == getenv("PATH").map { String(cString: $0) })
        #expect(variables.count > 1)
    }

    @Test("the example file is right, and says the defaults")
    func example() throws {
        var example = try load(ExampleConfiguration.text)
        #expect(example.dataPath == "/tmp/data")
        #expect(example.database == .sqlite(path: "/tmp/data/roost.db"))
        let standard = Configuration()
        example.dataPath = standard.dataPath
        example.database = standard.database
        example.signingKeyPath = standard.signingKeyPath
        example.media.path = standard.media.path
        #expect(example == standard)
    }

    @Test("the standard value of every key can be read, and every key has a variable of its own")
    func keys() throws {
        for key in ConfigurationKey.all {
            #expect(problems(environment: [key.environmentName: key.standard]) == [], "\(key.path)")
        }
        #expect(Set(ConfigurationKey.all.map(\.environmentName)).count == ConfigurationKey.all.count)
        #expect(Set(ConfigurationKey.all.map(\.path)).count == ConfigurationKey.all.count)
    }

    @Test("the table in the README is the one that is made from the keys")
    func readme() throws {
        let path = #filePath.replacing("Tests/RoostTests/ConfigurationTests.swift", with: "README.md")
        let readme = String(decoding: try FileBytes.read(path, limit: 1_000_000), as: UTF8.self)
        #expect(readme.contains(ExampleConfiguration.table), "`roost config example --table` prints the right one")
    }

    @Test("defaults < file < environment < command line")
    func precedence() throws {
        let file =
            "server_name: file.org\nlog: { level: error }\nregistration: { mode: token }\nrate_limits: { enabled: true }"
        let environment = ["ROOST_SERVER_NAME": "environment.org", "ROOST_LOG_LEVEL": "debug", "HOME": "/root"]
        let options = CommandLineSettings(
            listen: "[::1]:9000", serverName: "option.org", openRegistration: true, noRateLimits: true)
        #expect(try load(file).serverName.string == "file.org")
        #expect(try load(file, environment: environment).serverName.string == "environment.org")
        let all = try load(file, environment: environment, options: options)
        #expect(all.serverName.string == "option.org")
        #expect(all.publicBaseURL == "https://option.org")
        #expect(all.log.level == .debug)
        #expect(all.registration.mode == .open)
        #expect(!all.rateLimits.enabled)
        #expect(all.listeners == [.init(address: "::1", port: 9000)])
    }

    @Test("relative paths in a file are relative to the file")
    func paths() throws {
        let configuration = try load(
            """
            signing_key_path: keys/signing.key
            database: { url: "sqlite:db/roost.db" }
            media: { path: /srv/media }
            listeners: [{ address: "unix:run/roost", tls: null }, { tls: { certificate: tls.crt, key: /etc/tls.key } }]
            """)
        #expect(configuration.signingKeyPath == "/tmp/keys/signing.key")
        #expect(configuration.database == .sqlite(path: "/tmp/db/roost.db"))
        #expect(configuration.media.path == "/srv/media")
        #expect(configuration.listeners[0].address == "unix:/tmp/run/roost")
        #expect(configuration.listeners[1].tls == .init(certificate: "/tmp/tls.crt", key: "/etc/tls.key"))
    }

    @Test("outgoing connections have federation's denied addresses unless they have their own")
    func denylists() throws {
        #expect(try load("federation: { ip_denylist: [] }").outgoing.ipDenylist == [])
        #expect(try load("federation: { ip_denylist: [] }\noutgoing: { ip_denylist: null }").outgoing.ipDenylist == nil)
        #expect(try load(environment: ["ROOST_FEDERATION_IP_DENYLIST": "[]"]).federation.ipDenylist == [])
        let range = try #require(AddressRange("10.0.0.0/8"))
        #expect(try load("federation: { ip_denylist: [10.0.0.0/8] }").outgoing.ipDenylist == [range])
    }

    @Test(
        "sizes and durations have units",
        arguments: [
            ("1", 1), ("512KiB", 524_288), ("100 MiB", 104_857_600), ("1GB", 1_000_000_000), ("2M", 2_097_152),
        ])
    func sizes(_ text: String, _ bytes: Int) throws {
        #expect(try load("media: { max_upload_size: \(text) }").media.maxUploadSize == bytes)
        #expect(try load("turn: { lifetime: 90m }").turn.lifetime == 5400)
    }

    @Test(
        "a wrong setting gets one line with its key, what is wrong and what would be right",
        arguments: [
            (
                "server_name: https://a.org",
                "roost.yaml:1: server_name: “https://a.org” is not a server name; write a host"
            ),
            ("\nmedia:\n  max_upload_size: lots", "roost.yaml:3: media.max_upload_size: “lots” is not a size; write a"),
            ("media: { max_upload_size: 99999999999GiB }", "media.max_upload_size: “99999999999GiB” is not a size"),
            ("listeners: [{ port: 99999 }]", "listeners[0].port: “99999” is not a number from 0 to 65535"),
            (
                "listeners: [{}, { serve: [client, admn] }]",
                "listeners[1].serve[1]: “admn” is not possible; write client, "
            ),
            ("listeners: [{ tls: { key: a } }]", "listeners[0].tls: it needs a certificate and a key"),
            (
                "listeners: [{ adress: a }]",
                "listeners[0]: “adress” is not a key here; there are address, port, tls, serve"
            ),
            ("listeners: []", "listeners: without a listener nobody reaches the server"),
            ("listeners: 8008", "listeners: “8008” is not a list; write [one, two], or [] for none"),
            ("registration: { mode: opne }", "registration.mode: “opne” is not possible; write open, token or closed"),
            ("registration: { guests: yes }", "registration.guests: “yes” is neither true nor false"),
            ("registration: { guests: \"true\" }", "registration.guests: “true” is neither true nor false"),
            ("registration: open", "registration: this is not a mapping"),
            ("regstration: { mode: open }", "regstration: there is no such key; the nearest is registration"),
            ("log: { levle: info }", "log.levle: there is no such key; the nearest is log.level"),
            ("log.level: info\nlog: { level: info, level: debug }", "roost.yaml:2: log.level: this is written twice"),
            ("trusted_proxies: [10.0.0.0/33]", "trusted_proxies[0]: “10.0.0.0/33” is not an address or a block"),
            ("default_room_version: 99", "default_room_version: “99” is not a room version of this server"),
            (
                "database: { url: \"mysql://u:secret@h/d\" }",
                "database.url: this is not the URL of a database; write sqlite:"
            ),
            ("public_base_url: example.org", "public_base_url: “example.org” is not the URL of a server"),
            ("turn: { uris: [\"stun:a\"] }", "turn.uris[0]: “stun:a” is not a TURN server"),
            ("- a\n- b", "roost.yaml:1: this is not a mapping of keys"),
            ("a: [", "not valid YAML"),
            ("\t: a", "not valid YAML"),
            ("server_name: a\n---\nserver_name: b", "a second document begins here"),
            ("a: &a [*a]", "nested too deeply"),
            (
                "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d]",
                "repeats too much"
            ),
        ])
    func wrong(_ yaml: String, _ expected: String) {
        let problems = problems(yaml)
        #expect(problems.contains { $0.contains(expected) }, "\(problems)")
        #expect(!problems.contains { $0.contains("\n") || $0.contains("secret") })
    }

    @Test("all wrong settings are told at once")
    func several() {
        #expect(problems("server_name: a b\nlog: { level: loud, format: xml }").count == 3)
    }

    @Test("a variable that no setting has is an error, those of tests are not settings")
    func variables() {
        #expect(
            problems(environment: ["ROOST_SERVERNAME": "a"]) == [
                "ROOST_SERVERNAME: no setting has this variable; the nearest is ROOST_SERVER_NAME"
            ])
        #expect(
            problems(environment: ["ROOST_LOG_LEVEL": "loud"])[0].hasPrefix("ROOST_LOG_LEVEL: log.level: “loud” is not")
        )
        #expect(problems(environment: ["ROOST_TEST_POSTGRES": "x", "ROOST_BINARY": "y", "ROOSTER": "z"]) == [])
    }

    @Test(
        "where no one listens is said by the option", arguments: ["foo", "1.2.3.4", ":80", "a:99999", "a b:1", "unix:"])
    func listen(_ text: String) {
        #expect(throws: ConfigurationProblems.self) { try load(options: CommandLineSettings(listen: text)) }
    }

    @Test("a server of one's own machine tells clients where it really is")
    func derivedURL() throws {
        #expect(try load(options: .init(listen: "127.0.0.1:9999")).publicBaseURL == "http://localhost:9999")
        #expect(try load("server_name: example.org").publicBaseURL == "https://example.org")
        #expect(try load("public_base_url: https://a.org/").publicBaseURL == "https://a.org")
    }

    @Test("registration files of application services are read, with keys for other servers in them")
    func appservices() throws {
        let directory = TemporaryDirectory()
        func write(_ name: String, _ text: String) throws -> String {
            let path = "\(directory.path)/\(name)"
            let file = try #require(fopen(path, "w"))
            fputs(text, file)
            fclose(file)
            return path
        }
        let whole = """
            id: IRC
            url: http://127.0.0.1:1234
            as_token: speaks
            hs_token: hears
            sender_localpart: _irc_bot
            rate_limited: false
            de.sorunome.msc2409.push_ephemeral: true
            namespaces:
              users: [{ exclusive: true, regex: "@_irc_.*", group_id: "+x:y" }]
              aliases: [{ exclusive: false, regex: '#_irc_.*' }]
              rooms: []
            """
        let irc = try write("irc.yaml", whole)
        let registration = try #require(try load("appservices: [\(irc)]").appservices.first)
        #expect(registration.id == "IRC" && registration.asToken == "speaks" && registration.hsToken == "hears")
        #expect(!registration.isRateLimited && registration.senderLocalpart == "_irc_bot")
        #expect(registration.users.map(\.isExclusive) == [true] && registration.aliases.map(\.isExclusive) == [false])
        #expect(registration.users[0].pattern.matches("@_irc_x:localhost"))
        let twin = try write("twin.yaml", whole.replacing("id: IRC", with: "id: Other"))
        #expect(problems("appservices: [\(irc), \(twin)]").contains { $0.contains("as_token") })
        for (old, new) in [
            ("as_token: speaks", ""), ("@_irc_.*", "@_irc_("), ("rate_limited: false", "rate_limited: 7"),
        ] {
            let wrong = try write("wrong.yaml", whole.replacing(old, with: new))
            #expect(problems("appservices: [\(wrong)]").contains { $0.contains("wrong.yaml") }, "\(new)")
        }
        #expect(problems("appservices: [/nowhere/at/all.yaml]").contains { $0.contains("no such file") })
    }

    @Test(
        "dates are days that there are",
        arguments: [("1970-01-02", 86_400_000), ("2024-02-29", 1_709_164_800_000), ("2026-09-01", 1_788_220_800_000)])
    func dates(_ text: String, _ milliseconds: Int64) throws {
        #expect(try load("media: { unauthenticated_before: \(text) }").media.unauthenticatedBefore == milliseconds)
        for wrong in ["2023-02-29", "2024-13-01", "2024-00-10", "2024-1", "soon", "1969-01-01"] {
            #expect(problems("media: { unauthenticated_before: \(wrong) }").count == 1, "\(wrong)")
        }
    }

    @Test("documents to accept and people to turn to are lists of mappings")
    func termsAndSupport() throws {
        let configuration = try load(
            """
            registration:
              terms: [{ policy: tos, version: "1", name: Terms, url: "https://example.org/t" }]
            support:
              contacts: [{ role: m.role.admin, matrix_id: "@me:example.org" }]
              page: https://example.org/help
            """)
        #expect(
            configuration.registration.terms == [
                .init(policy: "tos", version: "1", language: "en", name: "Terms", url: "https://example.org/t")
            ])
        #expect(configuration.support.contacts == [.init(role: "m.role.admin", matrixID: "@me:example.org")])
        #expect(configuration.support.page == "https://example.org/help")
        for wrong in [
            "registration: { terms: [{ policy: tos }] }", "support: { page: javascript:alert(1) }",
            "support: { contacts: [{ role: m.role.admin }] }", "registration: { token_lifetime: 5s }",
            "support: { contacts: [{ role: m.role.admin, matrix_id: me }] }",
        ] { #expect(problems(wrong).count == 1, "\(wrong)") }
    }
}
