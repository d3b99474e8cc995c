import Database
import Homeserver
import Logging
import MatrixCore
import NIOHTTP1

/// The one place where errors become answers.
enum ErrorResponse {
    static func make(for error: any Error, requestID: String, logger: Logger) -> Response {
        if let error = error as? MatrixError {
            if error.status >= 500 {
                logger.warning("answered with a failure", metadata: ["error": "\(error)"])
            }
            return make(for: error)
        }
        if error is CancellationError {
            // The client has gone, or the server stops: nobody reads this.
            return make(for: MatrixError(.unknown, "The request was cancelled.", status: 503))
        }
        if case DatabaseError.unavailable = error {
            logger.warning("answered with a failure", metadata: ["error": "\(error)"])
            return make(
                for: MatrixError(
                    .unknown, "The server's database is not available at the moment; try again in a while.", status: 503
                ))
        }
        logger.error("request failed", metadata: ["error": "\(String(reflecting: error))"])
        return make(
            for: MatrixError(.unknown, "Something went wrong in the server; its log tells more, under \(requestID)."))
    }

    static func make(for error: MatrixError) -> Response {
        var response = Response.json(error.json, status: HTTPResponseStatus(statusCode: error.status))
        if let milliseconds = error.retryAfterMS {
            response.headers.add(name: "Retry-After", value: String((max(milliseconds, 0) + 999) / 1000))
        }
        return response
    }
}
