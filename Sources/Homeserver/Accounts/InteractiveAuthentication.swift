import Database
import MatrixCore

/// User-interactive authentication (Client-Server API, "User-Interactive Authentication API"): an operation is done once
/// the stages of one of its flows are completed, in their order, in a session that is kept in the database.
///
/// A session belongs to one operation on one thing: stages completed for one can't be spent on another. The database knows it by
/// the hash of its ID alone.
struct InteractiveAuthentication: Sendable {
    let database: Database
    let surroundings: Surroundings

    /// Sessions older than this are over, in milliseconds.
    static let lifetime: Int64 = 3_600_000

    /// A stage that can be completed within the request, or on a page in a browser.
    enum Stage: String, Sendable, Hashable {
        case dummy = "m.login.dummy"
        case registrationToken = "m.login.registration_token"
        case terms = "m.login.terms"
        case password = "m.login.password"

        var name: String { rawValue }
    }

    /// What `auth` of a request brought about.
    enum Outcome: Sendable {
        /// All stages of a flow are completed; the session is to be ended with the operation, where there is one.
        case complete(session: String?, completed: [String: JSON])
        /// More is to be done: the body of the answer with status 401.
        case challenge(JSONObject)
    }

    /// How far a session has come.
    struct State: Sendable {
        /// A name of the operation and its target.
        let operation: String
        let flows: [[Stage]]
        /// Whose password is asked for, where one is.
        let user: UserID?
        var completed = JSONObject()

        init(operation: String, flows: [[Stage]], user: UserID?) {
            self.operation = operation
            self.flows = flows
            self.user = user
        }

        fileprivate init?(_ stored: [UInt8]) {
            guard let root = try? JSONDocument(parsing: stored, limits: .own).root,
                let operation = root["operation"]?.string
            else {
                return nil
            }
            self.operation = operation
            flows =
                root["flows"]?.elements.map { flow in
                    flow.elements.compactMap { $0.string.flatMap { Stage(rawValue: $0) } }
                } ?? []
            user = root["user"]?.string.flatMap { UserID($0) }
            completed = root["completed"]?.json.objectValue ?? JSONObject()
        }

        fileprivate var encoded: [UInt8] {
            var json: JSON = [
                "operation": .string(operation), "flows": .array(flows.map { .array($0.map { .string($0.name) }) }),
                "completed": .object(completed),
            ]
            if let user { json["user"] = .string(user.string) }
            return json.encoded()
        }

        var isDone: Bool { flows.contains { $0.allSatisfy(isCompleted) } }

        func isCompleted(_ stage: Stage) -> Bool { completed[stage.name] != nil }

        /// Whether all that comes before a stage in one of the flows is completed.
        func isNext(_ stage: Stage) -> Bool {
            flows.contains { flow in
                guard let place = flow.firstIndex(of: stage) else { return false }
                return flow[..<place].allSatisfy(isCompleted)
            }
        }
    }

    private static func key(_ session: String) -> String { Hex.encode(Hashing.sha256(Array(session.utf8))) }

    /// - Returns: nil if there is no such session, or it is over.
    func state(of session: String) async throws -> State? {
        let since = surroundings.now() - Self.lifetime
        return try await database.interactiveSession(Self.key(session), since: since).flatMap { State($0) }
    }

    func keep(_ state: State, as session: String) async throws {
        let now = surroundings.now()
        var write = Write()
        write.expireInteractiveSessions(before: now - Self.lifetime)
        write.putInteractiveSession(Self.key(session), state: state.encoded, at: now)
        try await database.write(write)
    }

    /// - Parameters:
    ///   - auth: the member `auth` of the body, if there is one.
    ///   - operation: a name of the operation and its target, to which the session is bound.
    ///   - flows: the stages of each flow.
    ///   - user: whose password is asked for.
    ///   - params: what clients must know of the stages.
    ///   - check: completes a stage from the contents of `auth`; answers what is to be remembered of it, or throws what
    ///     is wrong.
    func advance(
        _ auth: JSONView?, operation: String, flows: [[Stage]], user: UserID? = nil, params: JSON = [:],
        check: (Stage, JSONView) async throws -> JSON
    ) async throws -> Outcome {
        let session = try auth?.optionalString("session")
        var state = State(operation: operation, flows: flows, user: user)
        if let session {
            guard let known = try await self.state(of: session), known.operation == operation else {
                throw MatrixError(
                    .unknown, "This authentication session is over or belongs to something else; begin anew.",
                    status: 400)
            }
            state.completed = known.completed
        }
        var failure: MatrixError?
        if let auth, let type = try auth.optionalString("type") {
            guard let stage = Stage(rawValue: type), flows.joined().contains(stage) else {
                throw MatrixError(.unrecognized, "This authentication type is not one of those offered.", status: 400)
            }
            do {
                guard state.isNext(stage) else {
                    throw MatrixError(.forbidden, "Complete the stages before this one first.", status: 401)
                }
                // A stage that is completed stays so, whatever is tried on it again.
                if !state.isCompleted(stage) { state.completed[type] = try await check(stage, auth) }
            } catch let error as MatrixError where error.status == 401 || error.status == 403 {
                failure = error
            }
        }
        if auth != nil, failure == nil, state.isDone {
            return .complete(
                session: session.map(Self.key),
                completed: Dictionary(state.completed.map { ($0.key, $0.value) }) { $1 })
        }
        let id = session ?? surroundings.randomText(24)
        try await keep(state, as: id)
        return .challenge(Self.challenge(id, state, params, failure))
    }

    private static func challenge(
        _ session: String, _ state: State, _ params: JSON, _ failure: MatrixError?
    ) -> JSONObject {
        var body: JSONObject = [
            "session": .string(session),
            "flows": .array(state.flows.map { ["stages": .array($0.map { .string($0.name) })] }),
            "params": params,
        ]
        if !state.completed.isEmpty { body["completed"] = .array(state.completed.keys.map { .string($0) }) }
        if let failure {
            body["errcode"] = .string(failure.code.name)
            body["error"] = .string(failure.message)
        }
        return body
    }
}

extension AccountService {
    var interactive: InteractiveAuthentication {
        InteractiveAuthentication(database: database, surroundings: surroundings)
    }
}
