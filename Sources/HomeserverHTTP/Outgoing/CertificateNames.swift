import NIOCore
import NIOSSL

/// Whether a certificate is good for a name (RFC 9525).
///
/// The TLS library also takes a certificate that names the address of the connection, whatever name was asked for: who leads a name to an
/// address of theirs could have one. For names this comes on top.
enum CertificateNames {
    struct Mismatch: Error, CustomStringConvertible {
        let name: String
        var description: String { "the certificate is not good for \(name)" }
    }

    /// A handler that lets a connection to a name pass only if the certificate names it.
    static func handler(_ context: NIOSSLContext, for name: String) throws -> NIOSSLClientHandler {
        try NIOSSLClientHandler._makeSSLClientHandler(context: context, serverHostname: name) { certificate, channel in
            let names = certificate._subjectAlternativeNames().filter { $0.nameType == .dnsName }.map { entry in
                entry.contents.withUnsafeBufferPointer { String(decoding: $0, as: UTF8.self) }
            }
            guard names.contains(where: { matches($0, name) }) else {
                return channel.eventLoop.makeFailedFuture(Mismatch(name: name))
            }
            return channel.eventLoop.makeSucceededVoidFuture()
        }
    }

    /// A star stands for one whole label, the first, of a name with three or more.
    static func matches(_ pattern: String, _ name: String) -> Bool {
        func labels(_ text: String) -> [Substring] {
            let lowered = text.utf8.last == UInt8(ascii: ".") ? text.dropLast() : text[...]
            return lowered.lowercased().split(separator: ".", omittingEmptySubsequences: false)[...].map { $0 }
        }
        let wanted = labels(name), given = labels(pattern)
        guard wanted.count == given.count, !wanted.contains("") else { return false }
        if given[0] == "*" { return given.count > 2 && wanted.dropFirst() == given.dropFirst() }
        return wanted == given
    }
}
