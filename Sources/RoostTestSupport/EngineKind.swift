import Database
import Logging
import Synchronization

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// The engine that a test runs on. Tests of what both engines do run once on each.
public enum EngineKind: Sendable, CaseIterable {
    case sqlite, postgresql

    /// Where the PostgreSQL cluster of the tests is; nil if there is none, as when tests are not run by `scripts/test`.
    public static let cluster = getenv("ROOST_TEST_POSTGRES").map { String(cString: $0) }

    /// What one run of a test on an engine has made.
    private final class Run: Sendable {
        let kind: EngineKind
        let databases = Mutex<Set<String>>([])
        let engines = Mutex<[PostgreSQLEngine]>([])
        init(_ kind: EngineKind) { self.kind = kind }
    }

    @TaskLocal private static var run = Run(.sqlite)

    public static var current: EngineKind { run.kind }

    private static let said = Mutex(false)
    /// Each test's engine opens several connections, and the cluster has so many.
    private static let turns = Turns(10)

    /// Does something on each engine that there is.
    public static func onEach(_ body: @Sendable () async throws -> Void) async throws {
        try await $run.withValue(Run(.sqlite)) { try await body() }
        guard cluster != nil else {
            let isFirst = said.withLock { said in
                defer { said = true }
                return !said
            }
            if isFirst { print("ROOST_TEST_POSTGRES is not set: the tests run on SQLite only.") }
            return
        }
        try await onPostgreSQL(body)
    }

    /// Does something on PostgreSQL alone.
    public static func onPostgreSQL(_ body: @Sendable () async throws -> Void) async throws {
        await turns.take()
        let own = Run(.postgresql)
        let outcome: Result<Void, any Error>
        do {
            try await $run.withValue(own) { try await body() }
            outcome = .success(())
        } catch {
            print("on PostgreSQL: \(error)")
            outcome = .failure(error)
        }
        // One that the test has left open would go on looking for its database.
        for engine in own.engines.withLock({ $0 }) { await engine.close() }
        for name in own.databases.withLock({ $0 }) {
            _ = try? await PostgreSQLAdministration.run("DROP DATABASE \"\(name)\" WITH (FORCE)", at: cluster!)
        }
        turns.give()
        try outcome.get()
    }

    /// The engine of the current test on the database that belongs to a directory.
    public static func engine(in directory: TemporaryDirectory, logger: Logger) async throws -> any Engine {
        switch current {
        case .sqlite: return try await SQLiteEngine(path: "\(directory.path)/roost.db", logger: logger)
        case .postgresql:
            var limits = PostgreSQLEngine.Limits()
            limits.readers = [3, 2, 1]
            limits.writers = 3
            let engine = try await PostgreSQLEngine(url: try await url(of: directory), limits: limits, logger: logger)
            run.engines.withLock { $0.append(engine) }
            return engine
        }
    }

    /// The URL of the PostgreSQL database that belongs to a directory; it is made when it is asked for first.
    public static func url(of directory: TemporaryDirectory) async throws -> String {
        guard let cluster, let end = cluster.lastIndex(of: "/") else {
            throw DatabaseError.unusable("There is no PostgreSQL cluster for tests.")
        }
        let name = String(directory.path.split(separator: "/").last!)
        if run.databases.withLock({ $0.insert(name).inserted }) {
            try await PostgreSQLAdministration.run("CREATE DATABASE \"\(name)\"", at: cluster)
        }
        return "\(cluster[..<end])/\(name)"
    }
}

/// So many at a time.
private final class Turns: Sendable {
    private struct State {
        var free: Int
        var waiting: [CheckedContinuation<Void, Never>] = []
    }

    /// The lock protects the count; nothing is awaited while it is held.
    private let state: Mutex<State>

    init(_ count: Int) { state = Mutex(State(free: count)) }

    func take() async {
        await withCheckedContinuation { continuation in
            let isFree = state.withLock { state in
                if state.free == 0 {
                    state.waiting.append(continuation)
                    return false
                }
                state.free -= 1
                return true
            }
            if isFree { continuation.resume() }
        }
    }

    func give() {
        let next: CheckedContinuation<Void, Never>? = state.withLock { state in
            if state.waiting.isEmpty {
                state.free += 1
                return nil
            }
            return state.waiting.removeFirst()
        }
        next?.resume()
    }
}
