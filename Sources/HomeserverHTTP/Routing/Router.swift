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

    /// Answers a request; every failure is an answer too.
    public func respond(to request: Request) async -> Response {
        await RequestID.$current.withValue(request.id) {
            let start = ContinuousClock.now
            var request = request
            var response = await answer(&request)
            if request.method == .HEAD {
                response.dropBody()
            }
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

    private func answer(_ request: inout Request) async -> Response {
        let match = tree.match(request.path)
        // A path that none of the APIs of this listener has is unknown here, whatever other listeners serve.
        let routes = match?.routes.filter { request.served.contains($0.route.endpoint.api) } ?? []
        let isForBrowsers = routes.first.map { $0.route.endpoint.api == .client } ?? true
        var response: Response
        if request.method == .OPTIONS {
            // Also where there is nothing: a browser that asks about an endpoint we lack must get to see its 404.
            response = Response(status: .noContent)
            CrossOrigin.addPreflightHeaders(to: &response)
        } else {
            do {
                response = try await dispatch(&request, routes, match?.segments ?? [])
            } catch {
                response = ErrorResponse.make(for: error, requestID: request.id, logger: logger)
                if response.status == .methodNotAllowed {
                    response.headers.add(name: "Allow", value: Self.allowed(routes))
                }
            }
        }
        if isForBrowsers {
            CrossOrigin.addHeaders(to: &response)
        }
        return response
    }

    private func dispatch(
        _ request: inout Request, _ routes: [(method: HTTPMethod, route: RouteTree.Route)],
        _ segments: [RouteTree.Segment]
    ) async throws -> Response {
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
        try await admit(&request, route.endpoint)
        return try await route.endpoint.handler(request)
    }

    private static func allowed(_ routes: [(method: HTTPMethod, route: RouteTree.Route)]) -> String {
        var methods = routes.map(\.method.rawValue)
        if methods.contains("GET") { methods.append("HEAD") }
        return (methods + ["OPTIONS"]).joined(separator: ", ")
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
