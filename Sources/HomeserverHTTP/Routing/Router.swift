import Homeserver
import Logging
import NIOHTTP1

/// Answers requests: finds the endpoint, asks the gate, calls the handler, turns errors into answers.
///
/// It knows nothing of sockets: tests, and the command line while no server runs, call ``respond(to:)`` themselves.
public struct Router: Sendable {
    /// Decides whether a request may pass: authentication, which sets `requester`, and rate limits.
    public typealias Gate = @Sendable (inout Request, Endpoint) async throws -> Void

    private let tree: RouteTree
    private let admit: Gate
    private let logger: Logger

    public init(
        _ endpoints: [Endpoint], logger: Logger = Logger(label: "http"), admit: @escaping Gate = { _, _ in }
    ) {
        tree = RouteTree(endpoints)
        self.admit = admit
        self.logger = logger
    }

    /// Answers a request; every failure is an answer too. Waits in the task that asks, where the answer has to wait.
    public func respond(to request: Request) async -> Response {
        var reply = await reply(to: request)
        while true {
            switch reply {
            case .ready(let response): return response
            case .waiting(let waiting):
                await waiting.woken()
                reply = await waiting.again()
            }
        }
    }

    /// Answers a request, or tells that the answer has to wait.
    public func reply(to request: Request) async -> Reply {
        let answering = Answering(request, match: tree.match(request.path))
        return await reply(answering) { try await dispatch(answering) }
    }

    fileprivate func reply(_ answering: Answering, _ body: () async throws -> Response) async -> Reply {
        await RequestID.$current.withValue(answering.request.id) {
            do {
                let response = try await body()
                if let look = response.pending {
                    answering.waits()
                    return .waiting(WaitingReply(look: look, answering: answering, router: self))
                }
                return .ready(answering.finish(response, logger))
            } catch {
                return .ready(answering.finish(answering.failure(error, logger), logger))
            }
        }
    }

    /// Finds the endpoint and has it answer.
    private func dispatch(_ answering: Answering) async throws -> Response {
        guard let endpoint = try answering.endpoint() else { return Response(status: .noContent) }
        answering.request.exchange?.endsWithClient = endpoint.onlyReads
        try await admit(&answering.request, endpoint)
        return try await endpoint.handler(answering.request)
    }
}

/// What a request comes to.
public enum Reply: Sendable {
    case ready(Response)
    case waiting(WaitingReply)
}

/// A request that waits for something to happen, with nothing more of it in memory than what its answer needs.
public final class WaitingReply: Sendable {
    private let look: PendingLook
    private let answering: Answering
    private let router: Router

    fileprivate init(look: PendingLook, answering: Answering, router: Router) {
        self.look = look
        self.answering = answering
        self.router = router
    }

    /// Has something called, once at most, when it is time for ``again()``: by any thread, perhaps at once.
    func whenWoken(_ wake: @escaping @Sendable () -> Void) { look.whenWoken(wake) }

    func woken() async { await look.woken() }

    /// Looks whether there is an answer now. Called once.
    func again() async -> Reply {
        await router.reply(answering) { .json(try await look.again()) }
    }

    /// The client has gone.
    func abandon() { look.abandon() }
}

/// A request on its way through the router. Touched by the task that answers it, by nobody else.
private final class Answering: @unchecked Sendable {
    var request: Request
    private let routes: [(method: HTTPMethod, route: RouteTree.Route)]
    private let segments: [RouteTree.Segment]
    private let start = ContinuousClock.now

    init(_ request: Request, match: RouteTree.Match?) {
        self.request = request
        // A path that none of the APIs of this listener has is unknown here, whatever other listeners serve.
        routes = match?.routes.filter { request.served.contains($0.route.endpoint.api) } ?? []
        segments = match?.segments ?? []
    }

    /// The endpoint that is to answer; nil for a browser that only asks what it may. That is answered also where there is
    /// nothing: a browser that asks about an endpoint we lack must get to see its 404.
    func endpoint() throws -> Endpoint? {
        if request.method == .OPTIONS { return nil }
        guard !routes.isEmpty else { throw MatrixError.unrecognizedPath }
        var found = routes.first { $0.method == request.method }
        if found == nil, request.method == .HEAD {
            found = routes.first { $0.method == .GET }
        }
        guard let route = found?.route else { throw MatrixError.unrecognizedMethod }
        guard let parameters = PathParameters(route, segments, in: request.path) else {
            throw MatrixError.invalidParam("The path isn't valid percent-encoded UTF-8.")
        }
        request.parameters = parameters
        return route.endpoint
    }

    /// Lets go of what only the handler needed.
    func waits() { request.forgetContent() }

    func failure(_ error: any Error, _ logger: Logger) -> Response {
        var response = ErrorResponse.make(for: error, requestID: request.id, logger: logger)
        if response.status == .methodNotAllowed { response.headers.add(name: "Allow", value: allowed) }
        return response
    }

    private var allowed: String {
        var methods = routes.map(\.method.rawValue)
        if methods.contains("GET") { methods.append("HEAD") }
        return (methods + ["OPTIONS"]).joined(separator: ", ")
    }

    /// The answer as it goes out.
    func finish(_ answer: Response, _ logger: Logger) -> Response {
        var response = answer
        if request.method == .OPTIONS { CrossOrigin.addPreflightHeaders(to: &response) }
        let isForBrowsers = routes.first.map { $0.route.endpoint.api == .client } ?? true
        if isForBrowsers { CrossOrigin.addHeaders(to: &response) }
        if request.method == .HEAD { response.dropBody() }
        logger.debug(
            "answered",
            metadata: [
                "method": "\(request.method.rawValue)", "target": "\(request.redactedTarget)",
                "status": "\(response.status.code)", "took": "\(ContinuousClock.now - start)",
                "from": "\(request.remoteAddress)", "user": "\(request.requester?.userID.string ?? "-")",
            ])
        return response
    }
}

/// The request that the current task works for; log lines get it from here.
public enum RequestID {
    @TaskLocal public static var current: String?
}

extension Response {
    /// Leaves the headers of the answer to a GET, with its length, and nothing else (RFC 9110 §9.3.2).
    fileprivate mutating func dropBody() {
        if let bodyLength, status != .noContent, !headers.contains(name: "Content-Length") {
            headers.add(name: "Content-Length", value: String(bodyLength))
        }
        body = .none
    }
}

extension Request {
    /// The target for the log: values of parameters that may be secret are left out.
    var redactedTarget: String {
        guard !rawQuery.isEmpty else { return path }
        let query = rawQuery.split(separator: "&").map { pair in
            let name = pair.prefix { $0 != "=" }
            let plain = PercentDecoding.decode(name.utf8, plusIsSpace: true)?.lowercased()
            let isSecret = ["token", "secret", "password", "session", "mac"].contains { plain?.contains($0) ?? true }
            return isSecret ? "\(name)=…" : String(pair)
        }
        return "\(path)?\(query.joined(separator: "&"))"
    }
}
