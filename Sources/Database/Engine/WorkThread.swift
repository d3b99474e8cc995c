#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// A thread of its own with a list of things to do, for work that blocks: commits, checkpoints.
///
/// The lock protects `waiting` and `closing`; nothing is done while it is held.
public final class WorkThread<Item: Sendable>: RunsOnThread, @unchecked Sendable {
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let condition: UnsafeMutablePointer<pthread_cond_t>
    private var waiting: [Item] = []
    private var closing = false
    private var finished: [CheckedContinuation<Void, Never>] = []
    private var ended = false
    private let most: Int
    private let work: @Sendable ([Item]) -> Void

    /// - Parameters:
    ///   - most: how many items are taken at once.
    ///   - work: what is done with the items that were waiting, in their order.
    public init(most: Int, work: @escaping @Sendable ([Item]) -> Void) {
        self.most = most
        self.work = work
        mutex = .allocate(capacity: 1)
        condition = .allocate(capacity: 1)
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
        startThread()
    }

    deinit {
        pthread_mutex_destroy(mutex)
        pthread_cond_destroy(condition)
        mutex.deallocate()
        condition.deallocate()
    }

    /// Puts an item at the end of the list.
    ///
    /// - Returns: whether it will be worked on; false once the thread is closing.
    public func add(_ item: Item) -> Bool {
        pthread_mutex_lock(mutex)
        if closing {
            pthread_mutex_unlock(mutex)
            return false
        }
        waiting.append(item)
        pthread_mutex_unlock(mutex)
        // Outside of the lock, or the thread would wake only to wait for it.
        pthread_cond_signal(condition)
        return true
    }

    /// Takes no more, finishes what was added, and returns when the thread has ended.
    public func close() async {
        await withCheckedContinuation { continuation in
            pthread_mutex_lock(mutex)
            closing = true
            if ended {
                pthread_mutex_unlock(mutex)
                continuation.resume()
            } else {
                finished.append(continuation)
                pthread_cond_signal(condition)
                pthread_mutex_unlock(mutex)
            }
        }
    }

    func run() {
        while true {
            pthread_mutex_lock(mutex)
            while waiting.isEmpty && !closing { pthread_cond_wait(condition, mutex) }
            if waiting.isEmpty {
                ended = true
                let finished = finished
                pthread_mutex_unlock(mutex)
                for continuation in finished { continuation.resume() }
                return
            }
            let taken: [Item]
            if waiting.count <= most {
                taken = waiting
                waiting = []
            } else {
                taken = Array(waiting[..<most])
                waiting.removeFirst(most)
            }
            pthread_mutex_unlock(mutex)
            work(taken)
        }
    }
}

/// What a thread can be told to do without knowing its type.
protocol RunsOnThread: AnyObject {
    func run()
}

extension RunsOnThread {
    /// Runs the object on a thread of its own, which keeps it alive until it has ended.
    func startThread() {
        var thread = pthread_t()
        let context = Unmanaged.passRetained(self as AnyObject).toOpaque()
        let code = pthread_create(
            &thread, nil,
            { context in
                let object = Unmanaged<AnyObject>.fromOpaque(context!).takeRetainedValue()
                (object as? any RunsOnThread)?.run()
                return nil
            }, context)
        precondition(code == 0, "The system gives no more threads (pthread_create: \(code)).")
        pthread_detach(thread)
    }
}
