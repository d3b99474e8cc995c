import NIOCore
import NIOHTTP1
import NIOHTTP2
import NIOSSL
import NIOTLS

/// Sets up a new connection: TLS if the listener has it, then HTTP/1.1 or, when the client chose it in the TLS
/// handshake, HTTP/2.
struct ConnectionPipeline: Sendable {
    let server: ServerContext
    let connections: ConnectionRegistry
    let served: Endpoint.APIs
    let certificates: TLSCertificates?

    /// Called on the channel's event loop.
    func configure(_ channel: any Channel) throws {
        let peer = Peer(channel, served: served, in: server)
        guard connections.add(channel, from: peer.counted, within: server.limits) else {
            channel.close(promise: nil)
            return
        }
        guard let certificates else {
            try configureHTTP1(channel, peer)
            return
        }
        let pipeline = channel.pipeline.syncOperations
        try pipeline.addHandler(NIOSSLServerHandler(context: certificates.context))
        try pipeline.addHandler(HandshakeDeadline(server.limits.firstRequest))
        try pipeline.addHandler(
            ApplicationProtocolNegotiationHandler { result, channel in
                channel.eventLoop.makeCompletedFuture {
                    if case .negotiated("h2") = result {
                        try configureHTTP2(channel, peer)
                    } else {
                        try configureHTTP1(channel, peer)
                    }
                }
            })
    }

    private func configureHTTP1(_ channel: any Channel, _ peer: Peer) throws {
        var limits = NIOHTTPDecoderLimitConfiguration()
        limits.maxHeaderFieldCount = server.limits.headerCount
        limits.maxHeaderFieldSize = server.limits.headerBytes
        limits.maxHeaderListSize = server.limits.headerBytes
        let pipeline = channel.pipeline.syncOperations
        try pipeline.addHandler(HTTPResponseEncoder())
        try pipeline.addHandler(ByteToMessageHandler(HTTPRequestDecoder(limitConfiguration: limits)))
        try pipeline.addHandler(
            Connection(server, executor: LoopExecutor(channel.eventLoop), peer: peer, isStream: false))
    }

    private func configureHTTP2(_ channel: any Channel, _ peer: Peer) throws {
        let executor = LoopExecutor(channel.eventLoop)
        var connection = NIOHTTP2Handler.ConnectionConfiguration()
        connection.initialSettings = [
            HTTP2Setting(parameter: .maxConcurrentStreams, value: server.limits.streams),
            HTTP2Setting(parameter: .maxHeaderListSize, value: server.limits.headerBytes),
        ]
        var stream = NIOHTTP2Handler.StreamConfiguration()
        stream.outboundBufferSizeHighWatermark = 64 * 1024
        stream.outboundBufferSizeLowWatermark = 32 * 1024
        let management = NIOHTTP2ServerConnectionManagementHandler(
            eventLoop: channel.eventLoop,
            configuration: .init(
                maxIdleTime: server.limits.idle, maxAge: nil, maxGraceTime: server.limits.write,
                keepalive: .init(pingInterval: server.limits.idle, ackTimeout: server.limits.firstRequest)))
        let pipeline = channel.pipeline.syncOperations
        _ = try pipeline.configureHTTP2Pipeline(
            mode: .server, connectionConfiguration: connection, streamConfiguration: stream,
            streamDelegate: management.http2StreamDelegate
        ) { stream in
            stream.eventLoop.makeCompletedFuture {
                let pipeline = stream.pipeline.syncOperations
                try pipeline.addHandler(HTTP2FramePayloadToHTTP1ServerCodec())
                try pipeline.addHandler(Connection(server, executor: executor, peer: peer, isStream: true))
            }
        }
        try pipeline.addHandler(management)
        // The channel is active since before the TLS handshake; the timers of the handler start here.
        management.channelActive(context: try pipeline.context(handler: management))
    }
}
