import NIOHTTP2
import NIOSSL
import Synchronization

/// The certificate of a listener, read from its files again whenever ``reload()`` is called.
///
/// The mutex protects the context that new connections get; connections that exist keep theirs.
final class TLSCertificates: Sendable {
    private let files: Listener.TLSFiles
    private let current: Mutex<NIOSSLContext>

    init(_ files: Listener.TLSFiles) throws {
        self.files = files
        current = Mutex(try Self.load(files))
    }

    var context: NIOSSLContext { current.withLock { $0 } }

    /// Takes up changed files; when they can't be used, the certificate from before stays and the error says why.
    func reload() throws {
        let context = try Self.load(files)
        current.withLock { $0 = context }
    }

    private static func load(_ files: Listener.TLSFiles) throws -> NIOSSLContext {
        let chain: [NIOSSLCertificateSource]
        let key: NIOSSLPrivateKey
        do {
            chain = try NIOSSLCertificate.fromPEMFile(files.certificate).map { .certificate($0) }
        } catch {
            throw ListenerError(description: "The certificate \(files.certificate) can't be read as PEM: \(error)")
        }
        do {
            key = try NIOSSLPrivateKey(file: files.key, format: .pem)
        } catch {
            throw ListenerError(description: "The private key \(files.key) can't be read as PEM: \(error)")
        }
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain, privateKey: .privateKey(key))
        configuration.applicationProtocols = NIOHTTP2SupportedALPNProtocols
        configuration.minimumTLSVersion = .tlsv12
        do {
            return try NIOSSLContext(configuration: configuration)
        } catch {
            throw ListenerError(
                description: "The key \(files.key) and the certificate \(files.certificate) don't fit: \(error)")
        }
    }
}
