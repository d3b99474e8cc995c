import MatrixCore

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Measures what `docs/benchmarks.md` lists. One process, CPU time, the best of several rounds: what else runs on the
/// machine makes a round slower, never faster.
@main enum Bench {
    static func main() async throws {
        let arguments = CommandLine.arguments
        if arguments.count == 6, arguments[1] == "make-fork", let version = RoomVersion.named(arguments[2]),
            let members = Int(arguments[3]), let changes = Int(arguments[4])
        {
            try makeFork(version, members: members, changes: changes, path: arguments[5])
            return
        }
        if arguments.count >= 3, arguments[1] == "path" {
            try await pathSection(arguments[2], arguments.count > 3 ? Int(arguments[3]) ?? 1 : 1)
            return
        }
        if arguments.count >= 2, arguments[1] == "beside" {
            try await besideSection(Array(arguments.dropFirst(2)))
            return
        }
        let wanted = arguments.dropFirst().first
        for (name, section) in [
            ("json", jsonSection), ("events", eventSection), ("auth", authorizationSection), ("push", pushSection),
            ("resolution", resolutionSection),
        ] where wanted == nil || wanted == name {
            print("\n\(name)")
            try section()
        }
        if wanted == nil || wanted == "database" {
            print("\ndatabase")
            try await databaseSection()
        }
        if wanted == nil || wanted == "parallel" {
            print("\nparallel")
            try await parallelSection()
        }
        if wanted == nil || wanted == "sliding" {
            print("\nsliding sync")
            try await slidingSection()
        }
        if wanted == nil || wanted == "join" {
            print("\njoining")
            try await joinSection()
        }
        if wanted == nil || wanted == "waiting" {
            print("\nwaiting")
            let numbers = arguments.dropFirst(2).compactMap { Int($0) }
            try await waitingSection(users: numbers.first ?? 10_000, inOneRoom: numbers.dropFirst().first ?? 1_000)
        }
    }

    /// CPU seconds of this process.
    static func cpuSeconds() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    static func wallSeconds() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    /// Resident memory in MB; 0 where there is no /proc.
    ///
    /// What was freed before goes back to the system first, or growth would hide in it.
    static func memory() -> Double {
        if let symbol = dlsym(nil, "malloc_trim") {
            let trim = unsafeBitCast(symbol, to: (@convention(c) (Int) -> CInt).self)
            _ = trim(0)
        }
        var pages = 0
        if let file = fopen("/proc/self/statm", "r") {
            var size: CLong = 0
            var resident: CLong = 0
            withUnsafeMutablePointer(to: &size) { a in
                withUnsafeMutablePointer(to: &resident) { b in
                    _ = withVaList([a, b]) { vfscanf(file, "%ld %ld", $0) }
                }
            }
            pages = resident
            fclose(file)
        }
        return Double(pages) * 4096 / 1e6
    }

    /// Seconds for one call of `body`: the best of five rounds of about 0.2 seconds.
    static func seconds(_ body: () throws -> Void) rethrows -> Double {
        try body()
        var count = 1
        while true {
            let start = cpuSeconds()
            for _ in 0..<count { try body() }
            if cpuSeconds() - start > 0.05 { break }
            count *= 2
        }
        count *= 4
        var best = Double.infinity
        for _ in 0..<5 {
            let start = cpuSeconds()
            for _ in 0..<count { try body() }
            best = min(best, (cpuSeconds() - start) / Double(count))
        }
        return best
    }

    static func report(_ what: String, _ value: Double, _ unit: String) {
        let text = value >= 100 ? String(Int(value.rounded())) : String((value * 100).rounded() / 100)
        print("  " + what + String(repeating: " ", count: max(1, 58 - what.count)) + text + " " + unit)
        // A file has the line at once, too.
        fflush(nil)
    }
}

/// Keeps a result alive, so that the work for it isn't optimised away.
@inline(never) func keep<T>(_ value: T) {}
