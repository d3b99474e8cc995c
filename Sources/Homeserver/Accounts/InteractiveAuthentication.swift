import Database
import MatrixCore

/// User-interactive authentication (Client-Server API, "User-Interactive Authentication API"): an operation is done once
/// the stages of one of its flows are completed, in a session that is kept in the database.
///
/// A session belongs to one operation with one body: stages completed for one thing can't be spent on another.
struct InteractiveAuthentication: Sendable {
    let database: Database
    let surroundings: Surroundings

    /// Sessions older than this are over, in milliseconds.
    static let lifetime: Int64 = 3_600_000

    /// A stage that can be completed within the request.
    enum Stage: Sendable, Hashable {
        case dummy
        case registrationToken
        case password

        var name: String {
            switch self {
            case .dummy: "m.login.dummy"
            case .registrationToken: "m.login.registration_token"
            case .password: "m.login.password"
            }
        }
    }

    /// What `auth` of a request brought about.
    enum Outcome: Sendable {
        /// All stages of a flow are completed; the session is to be ended with the operation, where there is one.
        case complete(session: String?, completed: [String: JSON])
        /// More is to be done: the body of the answer with status 401.
        case challenge(JSONObject)
    }

    /// - Parameters:
    ///   - auth: the member `auth` of the body, if there is one.
    ///   - operation: a name of the operation and its target, to which the session is bound.
    ///   - flows: the stages of each flow.
    ///   - check: completes a stage from the contents of `auth`; answers what is to be remembered of it, or throws what
    ///     is wrong.
    func advance(
        _ auth: JSONView?, operation: String, flows: [[Stage]],
        check: (Stage, JSONView) async throws -> JSON
    ) async throws -> Outcome {
        var session = try auth?.optionalString("session")
        var completed = JSONObject()
        let now = surroundings.now()
        if let known = session {
            guard let state = try await database.interactiveSession(known, since: now - Self.lifetime),
                let stored = try? JSONDocument(parsing: state), stored.root["operation"]?.string == operation
            else {
                throw MatrixError(
                    .unknown, "This authentication session is over or belongs to something else; begin anew.",
                    status: 400)
            }
            completed = stored.root["completed"]?.json.objectValue ?? JSONObject()
        }
        var failure: MatrixError?
        if let auth, let type = try auth.optionalString("type") {
            guard let stage = Set(flows.joined()).first(where: { $0.name == type }) else {
                throw MatrixError(.unrecognized, "This authentication type is not one of those offered.", status: 400)
            }
            do {
                completed[type] = try await check(stage, auth)
            } catch let error as MatrixError where error.status == 401 || error.status == 403 {
                failure = error
            }
            let isDone = flows.contains { $0.allSatisfy { completed[$0.name] != nil } }
            if failure == nil, isDone {
                return .complete(session: session, completed: Dictionary(completed.map { ($0.key, $0.value) }) { $1 })
            }
        }
        let id = session ?? surroundings.randomText(24)
        session = id
        var write = Write()
        write.expireInteractiveSessions(before: now - Self.lifetime)
        let state: JSON = ["operation": .string(operation), "completed": .object(completed)]
        write.putInteractiveSession(id, state: state.encoded(), at: now)
        try await database.write(write)
        return .challenge(Self.challenge(id, flows: flows, completed: completed, failure: failure))
    }

    private static func challenge(
        _ session: String, flows: [[Stage]], completed: JSONObject, failure: MatrixError?
    ) -> JSONObject {
        var body: JSONObject = [
            "session": .string(session),
            "flows": .array(flows.map { ["stages": .array($0.map { .string($0.name) })] }),
            "params": [:],
        ]
        if !completed.isEmpty { body["completed"] = .array(completed.keys.map { .string($0) }) }
        if let failure {
            body["errcode"] = .string(failure.code.name)
            body["error"] = .string(failure.message)
        }
        return body
    }
}
