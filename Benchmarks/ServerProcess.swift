import NIOCore
import NIOPosix
import Synchronization

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// A server in a process of its own, of which what it and its children need is read from `/proc`.
final class ServerProcess: Sendable {
    let pid: pid_t
    let port: Int
    /// Seconds until it answered.
    let secondsToReady: Double

    private let hasEnded = Atomic(false)

    private init(pid: pid_t, port: Int, secondsToReady: Double) {
        (self.pid, self.port) = (pid, port)
        self.secondsToReady = secondsToReady
    }

    static func freePort() async throws -> Int {
        let probe = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .bind(host: "127.0.0.1", port: 0).get()
        let port = probe.localAddress!.port!
        try await probe.close()
        return port
    }

    /// Starts a program, and returns when it answers.
    ///
    /// - Parameters:
    ///   - words: the program, found as a shell finds it, and its arguments.
    ///   - log: what gets its output; nil: where this process writes.
    static func start(_ words: [String], port: Int, log: String? = nil) async throws -> ServerProcess {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        if let log {
            for descriptor in [STDOUT_FILENO, STDERR_FILENO] {
                posix_spawn_file_actions_addopen(&actions, descriptor, log, O_WRONLY | O_CREAT | O_APPEND, 0o644)
            }
        }
        // Threads of this process have signals blocked, which the child would inherit: it could not be asked to end.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var nothing = sigset_t()
        sigemptyset(&nothing)
        posix_spawnattr_setsigmask(&attributes, &nothing)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        var pid: pid_t = 0
        var arguments = words.map { strdup($0) } + [nil]
        defer { for case let argument? in arguments { free(argument) } }
        let start = Bench.wallSeconds()
        guard posix_spawnp(&pid, words[0], &actions, &attributes, &arguments, environ) == 0 else {
            throw BenchFailure(what: "\(words[0]) can't be started")
        }
        while Bench.wallSeconds() - start < 120 {
            if let client = try? await BenchClient(port: port) {
                let answer = try? await client.exchange(.GET, "/_matrix/client/versions", "")
                await client.close()
                if answer?.status == 200 {
                    return ServerProcess(pid: pid, port: port, secondsToReady: Bench.wallSeconds() - start)
                }
            }
            var status: CInt = 0
            if waitpid(pid, &status, WNOHANG) == pid { throw BenchFailure(what: "\(words[0]) ended at once") }
            try await Task.sleep(for: .milliseconds(10))
        }
        let server = ServerProcess(pid: pid, port: port, secondsToReady: 0)
        await server.end()
        throw BenchFailure(what: "the server doesn't answer")
    }

    /// Ends it as an administrator does, and by force after so many seconds.
    func end(within seconds: Double = 60) async {
        guard !hasEnded.load(ordering: .relaxed) else { return }
        let tree = tree()
        kill(pid, SIGTERM)
        var status: CInt = 0
        let start = Bench.wallSeconds()
        while waitpid(pid, &status, WNOHANG) == 0 {
            if Bench.wallSeconds() - start > seconds { for process in tree { kill(process, SIGKILL) } }
            try? await Task.sleep(for: .milliseconds(100))
        }
        hasEnded.store(true, ordering: .relaxed)
    }

    /// This process and those below it.
    private func tree() -> [pid_t] {
        var children: [pid_t: [pid_t]] = [:]
        for case let process? in Self.names(in: "/proc").map({ pid_t($0) }) {
            let fields = Self.statistics(process)
            if fields.count > 1, let parent = pid_t(fields[1]) { children[parent, default: []].append(process) }
        }
        var tree = [pid]
        var next = 0
        while next < tree.count {
            tree += children[tree[next]] ?? []
            next += 1
        }
        return tree
    }

    /// What stands after the name, which is in parentheses.
    private static func statistics(_ process: pid_t) -> [Substring] {
        text("/proc/\(process)/stat").split(separator: ")").last?.split(separator: " ") ?? []
    }

    /// CPU time of all its processes, and of those that they have seen end.
    func cpuSeconds() -> Double {
        let ticks = tree().reduce(0.0) { sum, process in
            let fields = Self.statistics(process)
            return sum + (fields.count > 14 ? fields[11...14].reduce(0) { $0 + (Double($1) ?? 0) } : 0)
        }
        return ticks / Double(sysconf(CInt(_SC_CLK_TCK)))
    }

    /// Resident memory in MB, without its children.
    func memory() -> Double {
        let fields = Self.text("/proc/\(pid)/statm").split(separator: " ")
        return fields.count > 1 ? (Double(fields[1]) ?? 0) * 4096 / 1e6 : 0
    }

    /// MiB of memory of all its processes, what they share counted once.
    func proportionalMemory() -> Double { sum("smaps_rollup", "Pss:") / 1024 }

    /// Bytes that all its processes have had written to the disk.
    func bytesWritten() -> Double { sum("io", "write_bytes:") }

    private func sum(_ file: String, _ name: String) -> Double {
        tree().reduce(0) { sum, process in
            let line = Self.text("/proc/\(process)/\(file)").split(separator: "\n").first { $0.hasPrefix(name) }
            return sum + (line?.split(separator: " ").dropFirst().first.flatMap { Double($0) } ?? 0)
        }
    }

    /// The names in a directory; none if there is no such directory.
    static func names(in path: String) -> [String] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            names.append(
                withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) })
        }
        return names.filter { $0 != "." && $0 != ".." }
    }

    static func text(_ path: String) -> String {
        guard let file = fopen(path, "r") else { return "" }
        defer { fclose(file) }
        var buffer = [UInt8](repeating: 0, count: 16_384)
        let count = fread(&buffer, 1, buffer.count, file)
        return String(decoding: buffer.prefix(count), as: UTF8.self)
    }
}
