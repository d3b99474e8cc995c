import Glibc
import Homeserver
import Logging
import NIOCore
import NIOPosix
import Synchronization

/// Listens on addresses and has requests answered, until it is shut down.
public final class HTTPServer: Sendable {
    private struct Bound: Sendable {
        let listener: Listener
        let channel: any Channel
        let certificates: TLSCertificates?
    }

    private let context: ServerContext
    let connections: ConnectionRegistry
    private let bound: [Bound]
    private let willDrain: @Sendable () async -> Void

    private init(
        context: ServerContext, connections: ConnectionRegistry, bound: [Bound],
        willDrain: @escaping @Sendable () async -> Void
    ) {
        self.context = context
        self.connections = connections
        self.bound = bound
        self.willDrain = willDrain
    }

    /// Starts listening. Either all listeners work, or none is left open.
    ///
    /// - Parameters:
    ///   - trustedProxies: whose `X-Forwarded-For` counts.
    ///   - reply: answers a request, usually ``Router/reply(to:)``.
    ///   - willDrain: called once when the server begins to shut down; long polls should be told to answer.
    /// - Throws: ``ListenerError``, a sentence for the person who starts the server.
    public static func start(
        _ listeners: [Listener], trustedProxies: [AddressRange] = [], limits: ServerLimits = ServerLimits(),
        logger: Logger = Logger(label: "http"), group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton,
        willDrain: @escaping @Sendable () async -> Void = {},
        reply: @escaping @Sendable (Request) async -> Reply
    ) async throws -> HTTPServer {
        // A client that closes while we write must not end the process.
        signal(SIGPIPE, SIG_IGN)
        let context = ServerContext(
            reply: reply, limits: limits, trustedProxies: trustedProxies, logger: logger)
        let connections = ConnectionRegistry()
        var bound: [Bound] = []
        do {
            for listener in listeners {
                let certificates = try listener.tls.map(TLSCertificates.init)
                let pipeline = ConnectionPipeline(
                    server: context, connections: connections, served: listener.served, certificates: certificates)
                let channel = try await bind(listener, on: group, pipeline)
                bound.append(Bound(listener: listener, channel: channel, certificates: certificates))
            }
        } catch {
            for open in bound { try? await open.channel.close() }
            throw error
        }
        return HTTPServer(context: context, connections: connections, bound: bound, willDrain: willDrain)
    }

    private static func bind(
        _ listener: Listener, on group: any EventLoopGroup, _ pipeline: ConnectionPipeline
    ) async throws -> any Channel {
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 1024)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try pipeline.configure(channel) }
            }
        do {
            switch listener.address {
            case .tcp(let host, let port):
                return
                    try await bootstrap
                    .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                    .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
                    // Most requests are small, and a connection keeps its last buffer while its client waits.
                    .childChannelOption(
                        .recvAllocator,
                        value: AdaptiveRecvByteBufferAllocator(minimum: 512, initial: 512, maximum: 262_144)
                    )
                    .bind(host: host, port: port).get()
            case .unix(let path, let mode):
                let channel = try await bootstrap.bind(
                    unixDomainSocketPath: path, cleanupExistingSocketFile: true
                ).get()
                guard chmod(path, mode_t(mode)) == 0 else {
                    try? await channel.close()
                    throw IOError(errnoCode: errno, reason: "chmod")
                }
                return channel
            }
        } catch {
            throw ListenerError(description: "Can't listen on \(listener.address): \(reason(of: error))")
        }
    }

    private static func reason(of error: any Error) -> String {
        switch (error as? IOError)?.errnoCode {
        case EADDRINUSE: "another program listens there already."
        case EADDRNOTAVAIL: "this machine doesn't have that address."
        case EACCES: "this user isn't allowed to; ports below 1024 need a privilege."
        case let code?: "\(String(cString: strerror(code)))."
        case nil: "\(error)."
        }
    }

    /// The addresses in the order of the listeners, with the ports that were taken for port 0.
    public var addresses: [Listener.Address] {
        bound.map {
            guard case .tcp(let host, _) = $0.listener.address, let port = $0.channel.localAddress?.port else {
                return $0.listener.address
            }
            return .tcp(host: host, port: port)
        }
    }

    /// Reads the certificates again; connections from now on get them.
    ///
    /// - Throws: ``ListenerError`` for the first that can't be used; the old ones of that listener stay.
    public func reloadCertificates() throws {
        var failure: (any Error)?
        for listener in bound {
            do { try listener.certificates?.reload() } catch { failure = failure ?? error }
        }
        if let failure { throw failure }
    }

    /// Stops: takes no more connections and requests, lets running requests finish, also those whose clients have gone, and closes the
    /// connections of those that still run after `deadline`.
    public func shutdown(within deadline: Duration) async {
        context.drain()
        for listener in bound {
            try? await listener.channel.close()
            if case .unix(let path, _) = listener.listener.address { unlink(path) }
        }
        await willDrain()
        connections.quiesce()
        let requests = Task { [context] in await context.waitUntilNoneRuns() }
        let overdue = Task { [connections] in
            try await Task.sleep(for: deadline)
            connections.closeAll()
            requests.cancel()
        }
        // Once all is answered nobody has a reason to keep a connection; a client that does anyway is not waited for.
        let answered = Task { [connections, context] in
            await requests.value
            try await Task.sleep(for: .nanoseconds(context.limits.linger.nanoseconds))
            connections.closeAll()
        }
        await connections.waitUntilEmpty()
        await requests.value
        overdue.cancel()
        answered.cancel()
    }
}
