import MatrixCore

/// A failure that is told to whoever made the request: a code for programs and a sentence for people.
///
/// This is the one error type that reaches a client. Every other error becomes `M_UNKNOWN` with status 500 and its
/// details stay in the log.
public struct MatrixError: Error, Sendable {
    public var code: Code
    /// A sentence a person can act on.
    public var message: String
    /// The HTTP status; the code's usual one unless the endpoint demands another.
    public var status: Int
    /// Further members of the error object, such as `soft_logout` or `room_version`.
    public var extra: JSONObject
    /// How long to wait before the next attempt; becomes the `Retry-After` header and `retry_after_ms`.
    public var retryAfterMS: Int?

    public init(
        _ code: Code, _ message: String, status: Int? = nil, extra: JSONObject = [:], retryAfterMS: Int? = nil
    ) {
        self.code = code
        self.message = message
        self.status = status ?? code.status
        self.extra = extra
        self.retryAfterMS = retryAfterMS
    }

    /// The error object: `errcode`, `error` and what the code adds.
    public var json: JSON {
        var members: JSONObject = ["errcode": .string(code.name), "error": .string(message)]
        for (key, value) in extra {
            members[key] = value
        }
        if let retryAfterMS {
            members["retry_after_ms"] = .integer(Int64(retryAfterMS))
        }
        return .object(members)
    }
}

extension MatrixError: CustomStringConvertible {
    public var description: String { "\(code.name) (\(status)): \(message)" }
}

/// The failures that are thrown from many places, by name.
extension MatrixError {
    public static func forbidden(_ message: String) -> MatrixError { MatrixError(.forbidden, message) }
    public static func notFound(_ message: String) -> MatrixError { MatrixError(.notFound, message) }
    public static func badJSON(_ message: String) -> MatrixError { MatrixError(.badJSON, message) }
    public static func notJSON(_ message: String) -> MatrixError { MatrixError(.notJSON, message) }
    public static func invalidParam(_ message: String) -> MatrixError { MatrixError(.invalidParam, message) }
    public static func tooLarge(_ message: String) -> MatrixError { MatrixError(.tooLarge, message) }

    /// A required parameter, of the query or of the body, isn't there.
    public static func missingParam(_ name: String) -> MatrixError {
        MatrixError(.missingParam, "The parameter “\(name)” is missing.")
    }

    /// No endpoint has this path (404).
    public static let unrecognizedPath = MatrixError(.unrecognized, "This server has nothing at this path.")

    /// The path exists, but not with this method (405).
    public static let unrecognizedMethod = MatrixError(
        .unrecognized, "This path doesn't answer requests with this method.", status: 405)

    /// The request needs an access token and has none.
    public static let missingToken = MatrixError(.missingToken, "This needs an access token; sign in first.")

    /// The access token isn't, or is no longer, valid.
    ///
    /// - Parameter softLogout: whether the client may keep its keys and ask for a new token on the same device.
    public static func unknownToken(softLogout: Bool = false) -> MatrixError {
        MatrixError(
            .unknownToken, "This access token isn't valid; sign in again.",
            extra: softLogout ? ["soft_logout": true] : [:])
    }

    /// Client-Server API, "Guest Access".
    public static let guestsForbidden = MatrixError(
        .guestAccessForbidden, "Guests can't do this; make an account first.")

    /// Client-Server API, "Account locking".
    public static let userLocked = MatrixError(
        .userLocked, "This account has been locked by those who run this server.", extra: ["soft_logout": true])

    /// Client-Server API, "Account suspension".
    public static let userSuspended = MatrixError(
        .userSuspended, "This account has been suspended: it may read and leave, but not do this.")

    /// Too many requests; the client may try again after the given time.
    public static func limitExceeded(retryAfterMS: Int) -> MatrixError {
        MatrixError(.limitExceeded, "Too many requests; wait a little and try again.", retryAfterMS: retryAfterMS)
    }
}
