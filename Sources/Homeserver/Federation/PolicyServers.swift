import Database
import Logging
import MatrixCore
import Synchronization

/// Asks rooms' policy servers about events (Server-Server API, "Asking for a Policy Server signature on an event").
///
/// A room waits for its policy server, but not long, and not again soon for one that doesn't answer.
final class PolicyServers: Sendable {
    private let client: FederationClient
    private let surroundings: Surroundings
    private let logger: Logger

    /// Milliseconds that a question takes at most, and for which a server that didn't answer is not asked again.
    private static let timeout: Int64 = 5_000
    private static let rest: Int64 = 30_000
    private static let mostBytes = 64 << 10
    /// Events that are asked about at the same time.
    private static let atOnce = 10

    private struct Question: Hashable {
        let server: ServerName
        let event: EventID
    }

    private struct State {
        /// Events that were refused, which come again with the next server that tells of them.
        var refused = BoundedCache<Question, MatrixError>(capacity: 10_000)
        var resting = BoundedCache<ServerName, Int64>(capacity: 1_000)
    }

    /// This server's own policy server, if it is one. The lock protects the reference.
    private let own = Mutex<PolicySigning?>(nil)
    /// The lock protects the tables; nothing is awaited while it is held.
    private let state = Mutex(State())

    init(client: FederationClient, surroundings: Surroundings, logger: Logger) {
        self.client = client
        self.surroundings = surroundings
        self.logger = logger
    }

    /// From now on this server is a policy server itself.
    func connect(_ signing: PolicySigning?) { own.withLock { $0 = signing } }

    /// The events with the signature of a policy server, those that it signs; the others as they are.
    func signed(_ events: [Event], by policy: RoomPolicy) async -> [Event] {
        let open = events.indices.filter { !policy.recommends(events[$0]) }
        var signed = events
        for (index, result) in zip(open, await ask(open.map { (events[$0], policy) })) {
            if case .success(let event) = result { signed[index] = event }
        }
        return signed
    }

    /// An event of this server's own with the signature of a policy server.
    ///
    /// - Throws: why it may not be sent.
    func sign(_ event: Event, by policy: RoomPolicy) async throws -> Event {
        policy.recommends(event) ? event : try await ask(policy, about: event).get()
    }

    /// Has what is about to be written in this server's name signed.
    ///
    /// - Returns: for events that may not be sent, by their places in the draft, why.
    func sign(_ draft: inout RoomDraft) async -> [Int: MatrixError] {
        let open = draft.unsigned
        if open.isEmpty { return [:] }
        var refused: [Int: MatrixError] = [:]
        let results = await ask(open.map { (draft.added[$0.index].parsed, $0.policy) })
        for (event, result) in zip(open, results) {
            switch result {
            case .success(let signed): draft.replace(at: event.index, with: signed)
            case .failure(let error): refused[event.index] = error
            }
        }
        return refused
    }

    private func ask(_ questions: [(event: Event, policy: RoomPolicy)]) async -> [Result<Event, MatrixError>] {
        await withTaskGroup(of: (Int, Result<Event, MatrixError>).self) { group in
            var rest = questions.indices[...]
            func next() {
                guard let index = rest.popFirst() else { return }
                let (event, policy) = questions[index]
                group.addTask { (index, await self.ask(policy, about: event)) }
            }
            for _ in 0..<Self.atOnce { next() }
            var results: [Int: Result<Event, MatrixError>] = [:]
            while let (index, result) = await group.next() {
                results[index] = result
                next()
            }
            return questions.indices.compactMap { results[$0] }
        }
    }

    /// The room has this server itself as its policy server.
    private func askOwn(_ policy: RoomPolicy, about event: Event) async -> Result<Event, MatrixError> {
        guard let own = own.withLock({ $0 }) else {
            return .failure(.forbidden("The room names this server as its policy server, and it is none."))
        }
        do {
            let signed = try await own.signed(event)
            guard policy.recommends(signed) else {
                return .failure(.forbidden("The room names another key than the one of this policy server."))
            }
            return .success(signed)
        } catch let error as MatrixError {
            return .failure(error)
        } catch {
            logger.error("the policy lists can't be read", metadata: ["reason": "\(error)"])
            return .failure(.forbidden("The room's policy server can't read its lists now; try again."))
        }
    }

    private func ask(_ policy: RoomPolicy, about event: Event) async -> Result<Event, MatrixError> {
        let server = policy.server
        let unreachable = MatrixError(
            .unknown, "The room's policy server \(server) doesn't answer, so nothing can be sent there now.",
            status: 502)
        let question = Question(server: server, event: event.eventID)
        let (refusal, isResting) = state.withLock { state in
            (state.refused[question], state.resting[server].map { $0 > surroundings.now() } ?? false)
        }
        if let refusal { return .failure(refusal) }
        if isResting { return .failure(unreachable) }
        if server == client.serverName { return await askOwn(policy, about: event) }
        do {
            let answer = try await client.post(
                "/_matrix/policy/v1/sign", event.root.json, to: server, timeout: Self.timeout,
                mostBytes: Self.mostBytes)
            guard let text = answer[server.string]?[RoomPolicy.keyID]?.string, let signature = Base64.decode(text),
                let signed = try? event.addingSignature(signature, keyID: RoomPolicy.keyID, of: server),
                policy.recommends(signed)
            else {
                return .failure(
                    .forbidden(
                        "The signature of the policy server \(server) isn't good for the key that the room names."))
            }
            return .success(signed)
        } catch let failure as FederationFailure {
            logger.debug(
                "a policy server doesn't sign an event",
                metadata: ["server": "\(server)", "event": "\(event.eventID)", "reason": "\(failure.reason)"])
            // Other statuses are about this server's requests, not about the event.
            guard let status = failure.status, failure.code != nil, [400, 403, 404, 429].contains(status) else {
                if !failure.isBusy {
                    state.withLock { $0.resting.insert(surroundings.now() + Self.rest, for: server, size: 1) }
                }
                return .failure(unreachable)
            }
            // What it says is told as it says it, but for a code that speaks of something else than the event.
            let code = failure.codeForClients ?? (status == 429 ? "M_LIMIT_EXCEEDED" : "M_FORBIDDEN")
            let error = MatrixError(MatrixError.Code(code, status: status), failure.reason, status: status)
            if status != 429 { state.withLock { $0.refused.insert(error, for: question, size: 1) } }
            return .failure(error)
        } catch {
            return .failure(unreachable)
        }
    }
}
