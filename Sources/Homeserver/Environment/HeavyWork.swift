import Database
import Synchronization

/// Work that takes long enough for others to notice, such as a first sync: not on the threads that serve requests, and one piece for
/// a user at a time, over however many connections more is asked for. What waits has its turn in the order in which it came.
final class HeavyWork: Sendable {
    /// What waits, by whose work is under way. The lock protects the table; nothing is awaited while it is held.
    private let underWay = Mutex<[UserNID: [CheckedContinuation<Void, Never>]]>([:])

    /// - Throws: what the work throws; `CancellationError` if nobody wants it any more when its turn comes.
    func run<Value: Sendable>(
        for user: UserNID, _ work: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        await begin(user)
        defer { end(user) }
        try Task.checkCancellation()
        // A task of its own doesn't stay where its maker is told to run.
        let task = Task { try await work() }
        return try await withTaskCancellationHandler {
            try await task.value
        } onCancel: {
            task.cancel()
        }
    }

    private func begin(_ user: UserNID) async {
        await withCheckedContinuation { continuation in
            let isFree = underWay.withLock { underWay in
                let isFree = underWay[user] == nil
                if isFree { underWay[user] = [] } else { underWay[user]?.append(continuation) }
                return isFree
            }
            if isFree { continuation.resume() }
        }
    }

    private func end(_ user: UserNID) {
        let next: CheckedContinuation<Void, Never>? = underWay.withLock { underWay in
            if underWay[user]?.isEmpty == false { return underWay[user]?.removeFirst() }
            underWay[user] = nil
            return nil
        }
        next?.resume()
    }
}
