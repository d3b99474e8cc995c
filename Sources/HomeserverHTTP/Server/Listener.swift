/// Where the server listens, and what it serves there.
public struct Listener: Sendable {
    public enum Address: Sendable, Hashable, CustomStringConvertible {
        /// Port 0 takes any free port.
        case tcp(host: String, port: Int)
        /// A Unix socket with the permissions of its file.
        case unix(path: String, mode: UInt32)

        public var description: String {
            switch self {
            case .tcp(let host, let port):
                host.utf8.contains(UInt8(ascii: ":")) ? "[\(host)]:\(port)" : "\(host):\(port)"
            case .unix(let path, _): "unix:\(path)"
            }
        }
    }

    /// Paths of a certificate chain and its private key, in PEM.
    public struct TLSFiles: Sendable, Hashable {
        public var certificate: String
        public var key: String

        public init(certificate: String, key: String) {
            self.certificate = certificate
            self.key = key
        }
    }

    public var address: Address
    public var tls: TLSFiles?
    public var served: Endpoint.APIs

    public init(_ address: Address, tls: TLSFiles? = nil, serves served: Endpoint.APIs) {
        self.address = address
        self.tls = tls
        self.served = served
    }
}

/// Why the server can't listen: a sentence for whoever starts it.
public struct ListenerError: Error, CustomStringConvertible {
    public let description: String
}
