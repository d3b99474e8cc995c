import Homeserver
import NIOCore

extension EventLoop {
    /// Does something, and waits for it until a deadline and no longer; it is done to its end nevertheless, which is for the good of whoever
    /// asks next.
    ///
    /// - Throws: ``TransportError`` with the reason when the time is up.
    func wait<T: Sendable>(
        until deadline: NIODeadline, _ reason: String, for work: @escaping @Sendable () async throws -> T
    ) async throws -> T {
        let promise = makePromise(of: T.self)
        promise.completeWithTask(work)
        let timer = scheduleTask(deadline: deadline) { promise.fail(TransportError(.timedOut, reason)) }
        defer { timer.cancel() }
        return try await promise.futureResult.get()
    }
}
