import Homeserver
import MatrixCore
import Synchronization

/// A way to the network on which a test holds requests up: they are on their way until it lets them go.
final class HeldTransport: FederationTransport {
    private let inner: any FederationTransport
    private let holds: @Sendable (ServerRequest) -> Bool

    private struct State {
        var isOpen = false
        var isLate = false
        var waiting: [CheckedContinuation<Void, Never>] = []
        var seen: [ServerRequest] = []
    }

    /// The lock protects the lists; nothing is awaited while it is held.
    private let state = Mutex(State())

    init(_ inner: any FederationTransport, holding holds: @escaping @Sendable (ServerRequest) -> Bool) {
        self.inner = inner
        self.holds = holds
    }

    /// The requests that were or are held up.
    var held: [ServerRequest] { state.withLock { $0.seen } }

    /// From now on the answers are held up instead: the other side has done what it was asked.
    func comesLate() { state.withLock { $0.isLate = true } }

    func letGo() {
        let waiting = state.withLock { state in
            state.isOpen = true
            defer { state.waiting = [] }
            return state.waiting
        }
        for one in waiting { one.resume() }
    }

    func send(_ request: ServerRequest) async throws -> ServerResponse {
        guard holds(request) else { return try await inner.send(request) }
        if state.withLock({ $0.isLate }) {
            let answer = try await inner.send(request)
            await wait(request)
            return answer
        }
        await wait(request)
        return try await inner.send(request)
    }

    private func wait(_ request: ServerRequest) async {
        await withCheckedContinuation { continuation in
            let isOpen = state.withLock { state in
                state.seen.append(request)
                if !state.isOpen { state.waiting.append(continuation) }
                return state.isOpen
            }
            if isOpen { continuation.resume() }
        }
    }

    func get(
        _ url: String, into sink: (any AnswerSink)?, timeout: Int64, mostBytes: Int
    ) async throws -> ServerResponse {
        try await inner.get(url, into: sink, timeout: timeout, mostBytes: mostBytes)
    }

    func close() async { await inner.close() }
}

/// The held transports of a scene's servers, in their order.
final class HeldTransports: Sendable {
    private let list = Mutex<[HeldTransport]>([])

    func add(_ inner: any FederationTransport, holding holds: @escaping @Sendable (ServerRequest) -> Bool)
        -> any FederationTransport
    {
        let transport = HeldTransport(inner, holding: holds)
        list.withLock { $0.append(transport) }
        return transport
    }

    subscript(index: Int) -> HeldTransport { list.withLock { $0[index] } }
}

/// Picks the requests about the event that is asked about first: a room's members are fetched by the event by which a server came in,
/// and who reads what was before may ask for the states of others.
final class FirstEvent: Sendable {
    private let first = Mutex<Substring?>(nil)
    private let concerns: @Sendable (ServerRequest) -> Bool

    init(of concerns: @escaping @Sendable (ServerRequest) -> Bool) { self.concerns = concerns }

    func isMeant(_ request: ServerRequest) -> Bool {
        guard concerns(request) else { return false }
        let event = request.target.split(separator: "event_id=").last
        return first.withLock { first in
            if first == nil { first = event }
            return first == event
        }
    }
}
