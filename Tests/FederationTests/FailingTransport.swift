import Homeserver
import MatrixCore
import Synchronization

/// A way to the network on which requests fail as long as a test wants.
final class FailingTransport: Sendable {
    private struct State {
        var fails: @Sendable (ServerRequest) -> Bool = { _ in false }
        var failed = 0
    }

    /// The lock protects what fails, and the count.
    private let state = Mutex(State())

    /// How many requests have failed.
    var failed: Int { state.withLock { $0.failed } }

    /// From now on these requests fail.
    func fail(_ fails: @escaping @Sendable (ServerRequest) -> Bool) { state.withLock { $0.fails = fails } }

    func between(_ inner: any FederationTransport) -> any FederationTransport { Transport(inner: inner, faults: self) }

    private func check(_ request: ServerRequest) throws {
        let isFailing = state.withLock { state in
            guard state.fails(request) else { return false }
            state.failed += 1
            return true
        }
        if isFailing { throw TransportError(.timedOut, "there was no answer in time") }
    }

    private struct Transport: FederationTransport {
        let inner: any FederationTransport
        let faults: FailingTransport

        func send(_ request: ServerRequest) async throws -> ServerResponse {
            try faults.check(request)
            return try await inner.send(request)
        }

        func get(
            _ url: String, into sink: (any AnswerSink)?, timeout: Int64, mostBytes: Int
        ) async throws -> ServerResponse {
            try await inner.get(url, into: sink, timeout: timeout, mostBytes: mostBytes)
        }

        func close() async { await inner.close() }
    }
}
