import Homeserver

/// Puts a configuration together: defaults, then the file, then the environment, then the command line.
struct ConfigurationLoader {
    /// Where a setting comes from, as the person who made it knows it.
    private enum Source {
        case file(String)
        case variable(String)

        func problem(line: Int, key: String, _ message: String) -> ConfigurationProblem {
            switch self {
            case .file(let path): ConfigurationProblem(place: "\(path):\(line)", key: key, message: message)
            case .variable(let name):
                // With the name of the variable the key is said already, unless the trouble is further inside.
                ConfigurationProblem(place: name, key: key, message: message)
            }
        }
    }

    private var configuration = Configuration()
    private var given: Set<String> = []
    private var problems: [ConfigurationProblem] = []

    /// Prefixes of variables that belong to tests and benchmarks of the project, and the one that names the file.
    private static let foreignVariables = [
        "ROOST_TEST_", "ROOST_BENCH_", "ROOST_ORACLE_", "ROOST_BINARY", "ROOST_CONFIG",
        // Kubernetes tells every container where a service of this name is.
        "ROOST_SERVICE_", "ROOST_PORT",
    ]

    /// - Throws: all problems at once, so that a person mends them in one go.
    static func load(
        file: String?, environment: [String: String], options: CommandLineSettings
    ) throws(ConfigurationProblems) -> Configuration {
        var loader = ConfigurationLoader()
        if let file { try loader.apply(file: file) }
        loader.apply(environment: environment)
        loader.apply(options)
        loader.complete(file: file)
        guard loader.problems.isEmpty else { throw ConfigurationProblems(loader.problems) }
        return loader.configuration
    }

    // MARK: File

    private mutating func apply(file: String) throws(ConfigurationProblems) {
        let bytes: [UInt8]
        do { bytes = try FileBytes.read(file, limit: 1024 * 1024) } catch {
            throw ConfigurationProblems(
                ConfigurationProblem(
                    place: file, key: "", message: "\(error.reason); `roost config example` prints one to start from"))
        }
        do {
            guard let root = try YAMLReader.read(bytes), !root.isNull else { return }
            let directory = Paths.directory(of: file)
            apply(root, prefix: "", base: directory, from: .file(file))
        } catch {
            throw ConfigurationProblems(
                ConfigurationProblem(place: "\(file):\(error.line)", key: "", message: error.reason))
        }
    }

    private mutating func apply(_ node: YAMLNode, prefix: String, base: String, from source: Source) {
        guard case .mapping(let members) = node.content else {
            let message = "this is not a mapping of keys to values"
            problems.append(source.problem(line: node.line, key: prefix, message))
            return
        }
        var seen: Set<String> = []
        for (keyNode, value) in members {
            guard case .scalar(let name, _) = keyNode.content else {
                problems.append(source.problem(line: keyNode.line, key: prefix, "a key must be a text"))
                continue
            }
            let path = prefix.isEmpty ? name : "\(prefix).\(name)"
            if !seen.insert(name).inserted {
                problems.append(source.problem(line: keyNode.line, key: path, "this is written twice; keep one"))
            } else if let key = Self.key(path) {
                set(key, value, base: base, from: source)
            } else if Self.isSection(path) {
                if !value.isNull { apply(value, prefix: path, base: base, from: source) }
            } else {
                problems.append(
                    source.problem(
                        line: keyNode.line, key: path, "there is no such key; the nearest is \(Self.nearest(path))"))
            }
        }
    }

    private mutating func set(_ key: ConfigurationKey, _ node: YAMLNode, base: String, from source: Source) {
        do {
            try key.set(&configuration, ConfigurationValue(node: node, base: base))
            given.insert(key.path)
        } catch {
            problems.append(source.problem(line: error.line, key: key.path + error.within, error.message))
        }
    }

    private static func key(_ path: String) -> ConfigurationKey? {
        ConfigurationKey.all.first { $0.path == path }
    }

    private static func isSection(_ path: String) -> Bool {
        ConfigurationKey.all.contains { $0.path.hasPrefix(path + ".") }
    }

    private static func nearest(_ path: String) -> String {
        let sections = Set(
            ConfigurationKey.all.compactMap { $0.path.contains(".") ? $0.path.prefix { $0 != "." } : nil })
        let paths = ConfigurationKey.all.map(\.path) + sections.sorted().map(String.init)
        return paths.min { EditDistance.between($0, path) < EditDistance.between($1, path) } ?? ""
    }

    // MARK: Environment

    private mutating func apply(environment: [String: String]) {
        for (name, text) in environment.sorted(by: { $0.key < $1.key }) where name.hasPrefix("ROOST_") {
            if Self.foreignVariables.contains(where: { name.hasPrefix($0) }) { continue }
            let source = Source.variable(name)
            guard let key = ConfigurationKey.all.first(where: { $0.environmentName == name }) else {
                let names = ConfigurationKey.all.map(\.environmentName)
                let nearest = names.min { EditDistance.between($0, name) < EditDistance.between($1, name) } ?? ""
                problems.append(
                    source.problem(line: 1, key: "", "no setting has this variable; the nearest is \(nearest)"))
                continue
            }
            do {
                let empty = YAMLNode(content: .scalar("", isPlain: true), line: 1)
                // Paths in a variable start from the working directory, as everywhere on a command line.
                set(key, try YAMLReader.read(Array(text.utf8)) ?? empty, base: "", from: source)
            } catch {
                problems.append(source.problem(line: error.line, key: key.path, error.reason))
            }
        }
    }

    // MARK: Command line

    private mutating func apply(_ options: CommandLineSettings) {
        func problem(_ option: String, _ message: String) {
            problems.append(ConfigurationProblem(place: option, key: "", message: message))
        }
        func set(_ path: String, _ text: String, as option: String) {
            guard let key = Self.key(path) else { return }
            do {
                let node = YAMLNode(content: .scalar(text, isPlain: true), line: 1)
                try key.set(&configuration, ConfigurationValue(node: node, base: ""))
                given.insert(path)
            } catch { problem(option, error.message) }
        }
        if let data = options.data { set("data_path", data, as: "--data") }
        if let name = options.serverName { set("server_name", name, as: "--server-name") }
        if options.openRegistration { set("registration.mode", "open", as: "--open-registration") }
        if options.noRateLimits { set("rate_limits.enabled", "false", as: "--no-rate-limits") }
        if let listen = options.listen {
            if let listener = Self.listener(listen) {
                configuration.listeners = [listener]
            } else {
                problem(
                    "--listen", "“\(listen)” is not an address; write it like 127.0.0.1:8008, [::1]:8008 or unix:/path")
            }
        }
    }

    private static func listener(_ text: String) -> Configuration.Listener? {
        if text.hasPrefix("unix:"), text.count > 5 { return .init(address: text, port: 0) }
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
            return nil
        }
        var host = String(text[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        guard !host.isEmpty, !host.contains(" "), !host.contains("/") else { return nil }
        return .init(address: host, port: Int(port))
    }

    // MARK: What follows from other settings

    private mutating func complete(file: String?) {
        if !given.contains("data_path"), let file {
            configuration.dataPath = Paths.resolve("data", from: Paths.directory(of: file))
        }
        let data = configuration.dataPath
        if !given.contains("signing_key_path") { configuration.signingKeyPath = "\(data)/signing.key" }
        if !given.contains("database.url") { configuration.database = .sqlite(path: "\(data)/roost.db") }
        if !given.contains("media.path") { configuration.media.path = "\(data)/media" }
        if !given.contains("outgoing.ip_denylist") {
            configuration.outgoing.ipDenylist = configuration.federation.ipDenylist
        }
        if !given.contains("public_base_url") || configuration.publicBaseURL.isEmpty {
            configuration.publicBaseURL = derivedBaseURL
        }
    }

    /// `https://` and the server name; on a machine of one's own the address of the first listener, so that it works.
    private var derivedBaseURL: String {
        let name = configuration.serverName.string
        guard name == "localhost" || name.hasPrefix("localhost:") else { return "https://\(name)" }
        guard let listener = configuration.listeners.first(where: { !$0.address.hasPrefix("unix:") }) else {
            return "http://localhost"
        }
        return "\(listener.tls == nil ? "http" : "https")://localhost:\(listener.port)"
    }
}

/// What the options of `roost serve` set.
struct CommandLineSettings {
    var data: String?
    var listen: String?
    var serverName: String?
    var openRegistration = false
    var noRateLimits = false
}

/// How many letters have to be changed, added or left out to make one text of another.
enum EditDistance {
    static func between(_ first: String, _ second: String) -> Int {
        let first = Array(first.utf8)
        let second = Array(second.utf8.prefix(128))
        var row = Array(0...second.count)
        for (i, a) in first.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for (j, b) in second.enumerated() {
                let substituted = diagonal + (a == b ? 0 : 1)
                diagonal = row[j + 1]
                row[j + 1] = min(substituted, row[j] + 1, diagonal + 1)
            }
        }
        return row[second.count]
    }
}
