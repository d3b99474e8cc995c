import ArgumentParser
import Dispatch
import Glibc
import Homeserver
import HomeserverHTTP
import Logging
import NIOHTTP1

/// `roost serve`: runs the server until a signal ends it.
struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "serve", abstract: "Run the server.")

    @OptionGroup var options: ConfigurationOptions

    @Option(help: "The only address to listen on, such as 127.0.0.1:8008, [::1]:8008 or unix:/path.")
    var listen: String?

    @Option(help: "What comes after the colon in @user:server (default: localhost).")
    var serverName: String?

    @Flag(help: "Let anyone make an account.")
    var openRegistration = false

    @Flag(help: "Don't limit how often anyone may ask.")
    var noRateLimits = false

    /// Running requests get most of the ten seconds that a service manager commonly gives; the rest is for the database.
    private static let drainTime = Duration.seconds(7)
    private static let stopTime = DispatchTimeInterval.seconds(9)

    func run() async throws {
        let configuration = try settings()
        ServerLog.bootstrap(configuration.log)
        let logger = Logger(label: "roost")
        Self.raiseFileLimit()
        let orders = Signals.orders()
        let lock = try DataDirectory(configuration.dataPath)
        let application = try await Wiring.start(configuration)
        let server: HTTPServer
        do {
            server = try await start(application, configuration)
        } catch let error as ListenerError {
            await application.stop()
            throw Failure(error.description)
        }
        for address in server.addresses { logger.info("listening", metadata: ["address": "\(address)"]) }
        Terminal.say(application.hasAccounts ? greeting(configuration) : welcome(configuration))
        for await order in orders {
            if order == .stop { break }
            reload(server, logger)
        }
        logger.info("stopping")
        Self.exitAnyway(logger)
        await server.shutdown(within: Self.drainTime)
        await application.stop()
        withExtendedLifetime(lock) {}
        logger.info("stopped")
    }

    private func settings() throws(Failure) -> Configuration {
        try options.load(
            CommandLineSettings(
                listen: listen, serverName: serverName, openRegistration: openRegistration, noRateLimits: noRateLimits))
    }

    private func start(_ application: Application, _ configuration: Configuration) async throws -> HTTPServer {
        let endpoints =
            application.endpoints + application.localEndpoints(configuration)
            + [
                HealthEndpoint.make(databaseAnswers: application.databaseAnswers),
                LandingPage.make(serverName: configuration.serverName, baseURL: configuration.publicBaseURL),
            ]
        let router = Router(endpoints, admit: application.admit)
        let socket = Listener(
            .unix(path: DataDirectory.socketPath(in: configuration.dataPath), mode: 0o600), serves: .local)
        return try await HTTPServer.start(
            configuration.listeners.map(Listener.init) + [socket], trustedProxies: configuration.trustedProxies,
            willDrain: application.drain, reply: router.reply)
    }

    /// SIGHUP: takes up changed certificates and another log level. Whatever is wrong is logged and changes nothing.
    private func reload(_ server: HTTPServer, _ logger: Logger) {
        do {
            ServerLog.setLevel(try settings().log.level)
            try server.reloadCertificates()
            logger.notice("reloaded the certificates and the log level")
        } catch {
            let reason = (error as? Failure)?.message ?? "\(error)"
            logger.error(
                "the configuration or a certificate is wrong; the old one stays", metadata: ["reason": "\(reason)"])
        }
    }

    /// Ends the process when the orderly way takes too long. Nothing is lost by that: what was acknowledged is on disk.
    private static func exitAnyway(_ logger: Logger) {
        DispatchQueue.global().asyncAfter(deadline: .now() + stopTime) {
            logger.warning("stopping took too long; leaving")
            _exit(0)
        }
    }

    /// Every connection is a file; the usual soft limit of 1024 is soon reached, the hard one is meant to be used.
    private static func raiseFileLimit() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    private func greeting(_ configuration: Configuration) -> String {
        """

        Roost runs as \(configuration.serverName). Sign in at \(configuration.publicBaseURL) with any Matrix client.
        More accounts: \(CommandLine.arguments[0]) user create\(options.repeated) NAME. Ctrl-C stops the server.

        """
    }

    private func welcome(_ configuration: Configuration) -> String {
        """

        Roost runs as \(configuration.serverName), and has no accounts yet.

          Make the first one, in another terminal:   \(CommandLine.arguments[0]) user create --admin\(options.repeated) NAME
          Then sign in with any Matrix client:       choose another homeserver and enter \(configuration.publicBaseURL)
          Let others make their own accounts:        \(registrationAdvice(configuration))

        Everything is stored in \(places(configuration)). Ctrl-C stops the server.

        """
    }

    private func places(_ configuration: Configuration) -> String {
        var elsewhere: [String] = []
        switch configuration.database {
        case .sqlite(let path): elsewhere.append(path)
        case .postgresql: elsewhere.append("PostgreSQL")
        }
        elsewhere.append(configuration.media.path)
        let data = configuration.dataPath
        return ([data] + elsewhere.filter { !$0.hasPrefix(data + "/") }).joined(separator: ", ")
    }

    private func registrationAdvice(_ configuration: Configuration) -> String {
        switch configuration.registration.mode {
        case .open: "registration is open to everyone"
        case .token: "give them a token: \(CommandLine.arguments[0]) token create\(options.repeated)"
        case .closed: "set registration.mode to token or open"
        }
    }
}

extension Listener {
    init(_ listener: Configuration.Listener) {
        let apis = listener.serve.compactMap { Endpoint.API(rawValue: $0.rawValue) }
        let address: Address
        if let path = listener.address.dropping(prefix: "unix:") {
            // Like a port of this machine: whoever is on it may connect, a reverse proxy above all.
            address = .unix(path: path, mode: 0o666)
        } else {
            address = .tcp(host: listener.address, port: listener.port)
        }
        self.init(
            address, tls: listener.tls.map { TLSFiles(certificate: $0.certificate, key: $0.key) },
            serves: Endpoint.APIs(apis))
    }
}
