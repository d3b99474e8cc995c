import NIOCore

/// What a stranger may make the server hold, and for how long.
public struct ServerLimits: Sendable {
    /// The most bytes of names and values of headers of one request; browsers with large cookies stay below 16 KiB.
    public var headerBytes = 64 * 1024
    /// The most headers of one request.
    public var headerCount = 100
    /// Bodies up to this size are read before the handler is called; larger ones while it reads them.
    public var bufferedBody = 64 * 1024
    /// How long a new connection may take until its first request (and before it, its TLS handshake) is complete.
    public var firstRequest: TimeAmount = .seconds(20)
    /// How long a connection may lie idle between requests; longer than the 60 s for which common proxies keep theirs.
    public var idle: TimeAmount = .seconds(75)
    /// What a body may take at least, whatever its size.
    public var bodyGrace: TimeAmount = .seconds(30)
    /// Beyond the grace, how many bytes of a body must arrive each second on average.
    public var bodyBytesPerSecond = 1024
    /// How long a client may take nothing of an answer that waits for it.
    public var write: TimeAmount = .seconds(60)
    /// How long a closed connection waits for the client to close too, so that the last answer isn't lost to a reset.
    public var linger: TimeAmount = .seconds(2)
    /// Connections of a server; more are closed at once.
    public var connections = 20_000
    /// Connections of one IPv4 address or IPv6 /64, so that no stranger takes all there are; a large household or office
    /// behind one address stays far below. This machine and trusted proxies may have as many as they like.
    public var connectionsPerAddress = 1000
    /// Requests at a time on one HTTP/2 connection.
    public var streams = 100

    public init() {}
}
