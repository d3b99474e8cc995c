import Synchronization

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// A thread that waits for sockets, and does what others hand it in between. What belongs to the loop is touched by its
/// thread alone and needs no locks.
final class PostgreSQLLoop: RunsOnThread, @unchecked Sendable {
    private struct Inbox {
        var work: [@Sendable () -> Void] = []
        var isAwake = false
        var isClosed = false
    }

    /// The lock protects what is handed over; nothing is done while it is held.
    private let inbox = Mutex(Inbox())
    private let wakeUp: (read: Int32, write: Int32)
    /// The connections that are watched.
    var connections: [Int32: PostgreSQLConnection] = [:]
    /// Called after each round, to see to what has changed. Answers when it must be called again at the latest.
    var afterRound: () -> UInt64 = { .max }

    init() {
        var ends: [Int32] = [0, 0]
        precondition(pipe(&ends) == 0, "The system gives no more files.")
        for end in ends {
            _ = fcntl(end, F_SETFL, O_NONBLOCK)
            _ = fcntl(end, F_SETFD, FD_CLOEXEC)
        }
        wakeUp = (ends[0], ends[1])
    }

    deinit {
        Glibc.close(wakeUp.read)
        Glibc.close(wakeUp.write)
    }

    /// Has the loop's thread do something soon; false once it has ended.
    @discardableResult
    func submit(_ work: @escaping @Sendable () -> Void) -> Bool {
        let (taken, wake) = inbox.withLock { inbox in
            if inbox.isClosed { return (false, false) }
            inbox.work.append(work)
            defer { inbox.isAwake = true }
            return (true, !inbox.isAwake)
        }
        if wake {
            var byte: UInt8 = 1
            _ = write(wakeUp.write, &byte, 1)
        }
        return taken
    }

    /// Ends the thread after what has been handed over. Called on the loop.
    func end() { inbox.withLock { $0.isClosed = true } }

    /// Ceases to watch a connection. The library closes the socket of one that has broken, so that another one may have its number.
    func forget(_ connection: PostgreSQLConnection) {
        if connections[connection.socket] === connection { connections[connection.socket] = nil }
    }

    func run() {
        var polled: [pollfd] = []
        while true {
            let (work, isClosed) = inbox.withLock { inbox in
                defer { inbox.work = [] }
                inbox.isAwake = !inbox.work.isEmpty
                return (inbox.work, inbox.isClosed)
            }
            for one in work { one() }
            if isClosed, work.isEmpty { break }
            let next = afterRound()
            var hasBroken = false
            for connection in connections.values where connection.isUnflushed {
                connection.flush()
                if connection.isBroken { hasBroken = true }
            }
            // What was handed over meanwhile is done before sleeping.
            polled.removeAll(keepingCapacity: true)
            polled.append(pollfd(fd: wakeUp.read, events: Int16(POLLIN), revents: 0))
            for (socket, connection) in connections where !connection.isBroken {
                let events = connection.wantsToWrite ? POLLIN | POLLOUT : POLLIN
                polled.append(pollfd(fd: socket, events: Int16(events), revents: 0))
            }
            let now = MonotonicTime.nanoseconds()
            let timeout: Int32 =
                !work.isEmpty || hasBroken
                ? 0 : next == .max ? -1 : next <= now ? 1 : Int32(min((next - now) / 1_000_000 + 1, 60_000))
            if poll(&polled, nfds_t(polled.count), timeout) <= 0 { continue }
            if polled[0].revents != 0 {
                var bytes = [UInt8](repeating: 0, count: 64)
                while read(wakeUp.read, &bytes, bytes.count) > 0 {}
            }
            for ready in polled.dropFirst() where ready.revents != 0 {
                guard let connection = connections[ready.fd] else { continue }
                if ready.revents & Int16(POLLOUT) != 0 { connection.flush() }
                if ready.revents & ~Int16(POLLOUT) != 0 { connection.receive() }
            }
        }
        connections = [:]
        afterRound = { .max }
    }
}
