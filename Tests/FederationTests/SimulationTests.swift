import Glibc
import RoostTestSupport
import Testing

/// Several homeservers in rooms of theirs do what a seed says, through all that can go wrong on networks and machines. When all is
/// healed, they have to agree; see docs/federation.md.
@Suite("Rooms of several servers, by seeds")
struct SimulationTests {
    private static func setting(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

    /// `ROOST_SIMULATE_SEEDS=100-400` runs others than those that always run, and `ROOST_SIMULATE_EMPHASIS=returns` those of that kind.
    private static let runs: [(seed: UInt64, emphasis: World.Emphasis)] = {
        let named = setting("ROOST_SIMULATE_EMPHASIS").flatMap { World.Emphasis(rawValue: $0) }
        let ends = setting("ROOST_SIMULATE_SEEDS")?.split(separator: "-").compactMap { UInt64($0) } ?? []
        if ends.count == 2, ends[0] <= ends[1] { return (ends[0]...ends[1]).map { ($0, named ?? .nothing) } }
        let emphases = named.map { [$0] } ?? World.Emphasis.allCases
        return (1...World.Emphasis.nothing.seeds).flatMap { seed in
            emphases.filter { seed <= $0.seeds }.map { (seed, $0) }
        }
    }()
    private static let atOnce = 2

    struct Outcome: Sendable {
        let seed: UInt64
        let emphasis: World.Emphasis
        var problems: [String] = []
        var log: [String] = []

        /// Writes what happened into the directory that `ROOST_SIMULATE_LOG` names.
        func write() {
            let name = emphasis == .nothing ? "\(seed).log" : "\(emphasis.rawValue)-\(seed).log"
            guard let directory = SimulationTests.setting("ROOST_SIMULATE_LOG"),
                let file = fopen("\(directory)/\(name)", "w")
            else { return }
            for line in log { fputs("\(line)\n", file) }
            fclose(file)
        }
    }

    static func run(_ seed: UInt64, _ emphasis: World.Emphasis) async -> Outcome {
        do {
            return try await SimulatedThread.run { thread in
                let world = World(seed: seed, emphasis: emphasis, thread: thread)
                do {
                    try await world.run()
                } catch {
                    world.problem("the simulation fails: \(error)")
                }
                await world.close()
                world.note(
                    "\(world.servers.count) servers, \(world.network.exchanges.count) requests, \(thread.cpuMilliseconds) ms of CPU"
                )
                return Outcome(seed: seed, emphasis: emphasis, problems: world.problems, log: world.log)
            }
        } catch {
            return Outcome(seed: seed, emphasis: emphasis, problems: ["\(error)"])
        }
    }

    @Test("servers agree when all is healed, and nothing acknowledged is missing anywhere")
    func converge() async {
        print("simulating \(Self.runs.count) runs")
        let stopsEarly = Self.setting("ROOST_SIMULATE_UNTIL_FAILURE") != nil
        await withTaskGroup(of: Outcome.self) { group in
            var runs = Self.runs.makeIterator()
            var isFailed = false
            func begin() {
                if let (seed, emphasis) = runs.next() { group.addTask { await Self.run(seed, emphasis) } }
            }
            for _ in 0..<Self.atOnce { begin() }
            for await outcome in group {
                if !outcome.problems.isEmpty {
                    isFailed = true
                    Issue.record(
                        """
                        \(outcome.emphasis.rawValue) seed \(outcome.seed): \(outcome.problems.prefix(10).joined(separator: "\n"))
                        To repeat it: SWIFT_DETERMINISTIC_HASHING=1 ROOST_SIMULATE_SEEDS=\(outcome.seed)-\(outcome.seed) \
                        ROOST_SIMULATE_EMPHASIS=\(outcome.emphasis.rawValue) ROOST_SIMULATE_LOG=/tmp swift test --skip-build \
                        --filter SimulationTests
                        """)
                }
                outcome.write()
                if isFailed, stopsEarly { continue }
                begin()
            }
        }
    }
}
