import Synchronization

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// A thread on which everything of a simulation happens, one thing after another, in an order that follows from what is done alone.
///
/// Whatever a task on this thread sets going — a task, a child task, an actor's turn, a continuation — waits in this thread's own
/// queue instead of the global pool's. Several such threads may be at work beside one another, and beside tests that know nothing of
/// them: only what begins on the thread stays there.
public final class SimulatedThread: @unchecked Sendable {
    // All of it is used on the thread itself.
    private var jobs: [UnownedJob] = []
    private var next = 0
    private var idle: CheckedContinuation<Void, Never>?
    private var isFinished = false

    private init() {}

    /// Everything waits for something that never comes.
    public struct Stuck: Error, CustomStringConvertible {
        public var description: String { "everything waits for something that never happens" }
    }

    /// Runs a simulation to its end on a thread of its own.
    ///
    /// - Throws: what it throws; ``Stuck``.
    public static func run<T: Sendable>(
        _ body: @escaping @Sendable (SimulatedThread) async throws -> T
    ) async throws -> T {
        Diversion.install()
        return try await withCheckedThrowingContinuation { continuation in
            start {
                let thread = SimulatedThread()
                continuation.resume(with: thread.work(body))
            }
        }
    }

    private func work<T: Sendable>(
        _ body: @escaping @Sendable (SimulatedThread) async throws -> T
    ) -> Result<T, any Error> {
        let outcome = Mutex<Result<T, any Error>?>(nil)
        pthread_setspecific(Diversion.key, Unmanaged.passUnretained(self).toOpaque())
        defer { pthread_setspecific(Diversion.key, nil) }
        Task {
            let result: Result<T, any Error>
            do { result = .success(try await body(self)) } catch { result = .failure(error) }
            outcome.withLock { $0 = result }
            self.isFinished = true
        }
        while !isFinished {
            if next < jobs.count {
                let job = jobs[next]
                next += 1
                if next == 4_096 {
                    jobs.removeFirst(next)
                    next = 0
                }
                job.runSynchronously(on: Diversion.generic)
            } else if let waiting = idle {
                idle = nil
                waiting.resume()
            } else {
                return .failure(Stuck())
            }
        }
        return outcome.withLock { $0! }
    }

    fileprivate func add(_ job: UnownedJob) { jobs.append(job) }

    /// What the simulation has cost so far.
    public var cpuMilliseconds: Int {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
    }

    /// Waits until nothing is left to do but to wait. One task of the simulation may do so at a time.
    public func settle() async { await withCheckedContinuation { idle = $0 } }

    /// Does something that needs other threads, while the simulation stands still: what begins there has to end there.
    public func outside<T: Sendable>(_ body: @escaping @Sendable () async throws -> T) throws -> T {
        let outcome = Mutex<Result<T, any Error>?>(nil)
        let done = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
        sem_init(done, 0, 0)
        defer {
            sem_destroy(done)
            done.deallocate()
        }
        pthread_setspecific(Diversion.key, nil)
        let address = UInt(bitPattern: done)
        Task.detached {
            let result: Result<T, any Error>
            do { result = .success(try await body()) } catch { result = .failure(error) }
            outcome.withLock { $0 = result }
            sem_post(UnsafeMutablePointer(bitPattern: address)!)
        }
        while sem_wait(done) != 0 {}
        pthread_setspecific(Diversion.key, Unmanaged.passUnretained(self).toOpaque())
        return try outcome.withLock { $0! }.get()
    }

    private static func start(_ body: @escaping @Sendable () -> Void) {
        final class Body {
            let run: @Sendable () -> Void
            init(_ run: @escaping @Sendable () -> Void) { self.run = run }
        }
        var thread = pthread_t()
        let code = pthread_create(
            &thread, nil,
            { context in
                Unmanaged<Body>.fromOpaque(context!).takeRetainedValue().run()
                return nil
            }, Unmanaged.passRetained(Body(body)).toOpaque())
        precondition(code == 0, "The system gives no more threads (pthread_create: \(code)).")
        pthread_detach(thread)
    }
}

/// Where the runtime lets a program decide what becomes of a job that would go to the global pool.
private enum Diversion {
    typealias Original = @convention(thin) (UnownedJob) -> Void
    typealias Hook = @convention(thin) (UnownedJob, Original) -> Void

    /// What a simulated thread is known by.
    static let key: pthread_key_t = {
        var key = pthread_key_t()
        precondition(pthread_key_create(&key, nil) == 0, "The system gives no more keys.")
        return key
    }()

    /// The executor of tasks that ask for none: a reference without an object.
    static let generic = unsafeBitCast((UInt(0), UInt(0)), to: UnownedSerialExecutor.self)

    static func install() { installed }

    private static let installed: Void = {
        _ = key
        #if canImport(Glibc)
            let program: UnsafeMutableRawPointer? = nil
        #else
            let program = UnsafeMutableRawPointer(bitPattern: -2)
        #endif
        guard let place = dlsym(program, "swift_task_enqueueGlobal_hook") else {
            preconditionFailure("This runtime has no swift_task_enqueueGlobal_hook.")
        }
        let hook: Hook = { job, original in
            if let thread = pthread_getspecific(Diversion.key) {
                Unmanaged<SimulatedThread>.fromOpaque(thread).takeUnretainedValue().add(job)
            } else {
                original(job)
            }
        }
        place.assumingMemoryBound(to: Optional<Hook>.self).pointee = hook
    }()
}
