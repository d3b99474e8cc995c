import Glibc
import RoostTestSupport
import Testing

/// Several homeservers in rooms of theirs do what a seed says, through all that can go wrong on networks and machines. When all is
/// healed, they have to agree; see docs/federation.md.
@Suite("Rooms of several servers, by seeds")
struct SimulationTests {
    /// `ROOST_SIMULATE_SEEDS=100-400` runs others than those that always run.
    private static let seeds: ClosedRange<UInt64> = {
        let ends = getenv("ROOST_SIMULATE_SEEDS").map {
            String(cString: $0).split(separator: "-").compactMap { UInt64($0) }
        }
        guard let ends, let first = ends.first, let last = ends.last, first <= last else { return 1...300 }
        return first...last
    }()
    private static let atOnce = 2

    struct Outcome: Sendable {
        let seed: UInt64
        var problems: [String] = []
        var log: [String] = []

        /// Writes what happened into the directory that `ROOST_SIMULATE_LOG` names.
        func write() {
            guard let directory = getenv("ROOST_SIMULATE_LOG"),
                let file = fopen("\(String(cString: directory))/\(seed).log", "w")
            else { return }
            for line in log { fputs("\(line)\n", file) }
            fclose(file)
        }
    }

    static func run(_ seed: UInt64) async -> Outcome {
        do {
            return try await SimulatedThread.run { thread in
                let world = World(seed: seed, thread: thread)
                do {
                    try await world.run()
                } catch {
                    world.problem("the simulation fails: \(error)")
                }
                await world.close()
                world.note(
                    "\(world.servers.count) servers, \(world.network.exchanges.count) requests, \(thread.cpuMilliseconds) ms of CPU"
                )
                return Outcome(seed: seed, problems: world.problems, log: world.log)
            }
        } catch {
            return Outcome(seed: seed, problems: ["\(error)"])
        }
    }

    @Test("servers agree when all is healed, and nothing acknowledged is missing anywhere")
    func converge() async {
        print("simulating the seeds \(Self.seeds.lowerBound) to \(Self.seeds.upperBound)")
        let stopsEarly = getenv("ROOST_SIMULATE_UNTIL_FAILURE") != nil
        await withTaskGroup(of: Outcome.self) { group in
            var seeds = Self.seeds.makeIterator()
            var isFailed = false
            for _ in 0..<Self.atOnce { if let seed = seeds.next() { group.addTask { await Self.run(seed) } } }
            for await outcome in group {
                if !outcome.problems.isEmpty {
                    isFailed = true
                    Issue.record(
                        """
                        seed \(outcome.seed): \(outcome.problems.prefix(10).joined(separator: "\n"))
                        To repeat it: SWIFT_DETERMINISTIC_HASHING=1 ROOST_SIMULATE_SEEDS=\(outcome.seed)-\(outcome.seed) \
                        ROOST_SIMULATE_LOG=/tmp swift test --skip-build --filter SimulationTests
                        """)
                }
                outcome.write()
                if isFailed, stopsEarly { continue }
                if let seed = seeds.next() { group.addTask { await Self.run(seed) } }
            }
        }
    }
}
