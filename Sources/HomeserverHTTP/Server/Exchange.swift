import NIOCore

/// One request and its answer on a connection. Touched on the connection's event loop only, which makes it sendable.
final class Exchange: @unchecked Sendable {
    /// Whether the request allows another one to follow on the connection.
    var keepsAlive: Bool
    let isHTTP10: Bool
    /// Where the body goes while the handler runs already; nil when it was complete before.
    var stream: BodyStream?
    let declaredLength: Int?
    /// Whether all of the body is here.
    var isBodyComplete = false
    /// Whether the rest of the body will never come, or came malformed or too slowly.
    var isBodyBroken = false
    /// Whether reading from the client waits for the handler to read the body.
    var pausedSince: NIODeadline?
    /// Whether the client waits for `100 Continue` before it sends the body.
    var owesContinue: Bool
    /// Whether it is given up when the client goes: a request that only reads, as its endpoint says. What was begun to be changed is
    /// changed, here and on other servers, whether or not somebody still waits for the answer.
    var endsWithClient = false
    /// Under which the log tells of it.
    var requestID = "-"
    /// What answers; nil while it waits.
    var task: Task<Void, Never>?
    var waiting: WaitingReply?
    var isHeadWritten = false

    init(keepsAlive: Bool, isHTTP10: Bool, declaredLength: Int?, owesContinue: Bool) {
        self.keepsAlive = keepsAlive
        self.isHTTP10 = isHTTP10
        self.declaredLength = declaredLength
        self.owesContinue = owesContinue
    }
}
