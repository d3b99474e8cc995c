import Database

/// Work that blocks for long, as reading all of an SQLite file does, on a thread of its own: not on those that serve requests, nor
/// on the few that everything else in the background shares.
enum OwnThread {
    private final class Executor: TaskExecutor {
        let thread = WorkThread<@Sendable () -> Void>(most: 1) { jobs in for job in jobs { job() } }

        func enqueue(_ job: consuming ExecutorJob) {
            let job = UnownedJob(job)
            // None is added later: the thread is closed when its task has ended.
            _ = thread.add { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
        }
    }

    static func run<Value: Sendable>(_ work: @escaping @Sendable () async throws -> Value) async throws -> Value {
        let executor = Executor()
        let result = await Task(executorPreference: executor) { try await work() }.result
        await executor.thread.close()
        return try result.get()
    }
}
