import Homeserver
import NIOHTTP1

/// Where a request ends and the next begins, and what becomes of the connection (RFC 9112 §6).
///
/// When two programs disagree about this, a stranger can hide a request in another one's body. So whatever the
/// specification leaves to a server's leniency is refused here.
struct MessageFraming {
    /// The length of the body; nil when it comes in chunks.
    let bodyLength: Int?
    let keepsAlive: Bool
    /// Whether the client sends the body only after `100 Continue`.
    let expectsContinue: Bool

    init(_ head: HTTPRequestHead) throws(MatrixError) {
        let headers = head.headers
        let lengths = headers["Content-Length"]
        let isHTTP2 = head.version.major == 2
        // HTTP/2 frames bodies itself; what stands here of Transfer-Encoding was put there for readers of HTTP/1.1.
        let encodings = isHTTP2 ? [] : headers["Transfer-Encoding"]
        if !isHTTP2 {
            let hosts = headers["Host"].count
            if hosts > 1 || hosts == 0 && head.version == .http1_1 {
                throw Self.malformed("It must have exactly one Host header.")
            }
        }
        guard lengths.isEmpty || encodings.isEmpty else {
            throw Self.malformed("It has a Content-Length and a Transfer-Encoding.")
        }
        if let encoding = encodings.first {
            guard encodings.count == 1, encoding.lowercased() == "chunked", head.version == .http1_1 else {
                throw Self.malformed("Its Transfer-Encoding isn't “chunked” alone, or it isn't HTTP/1.1.")
            }
            bodyLength = nil
        } else if let text = lengths.first {
            guard lengths.count == 1, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let length = Int(text)
            else {
                throw Self.malformed("Its Content-Length isn't one number.")
            }
            bodyLength = length
        } else {
            // A body of HTTP/2 needn't be announced; methods that have none are spared the streaming of one.
            bodyLength = isHTTP2 && ![.GET, .HEAD, .OPTIONS].contains(head.method) ? nil : 0
        }
        let expectation = headers.first(name: "Expect")
        if let expectation, expectation.lowercased() != "100-continue" {
            throw MatrixError(.unknown, "The expectation “\(expectation)” can't be met.", status: 417)
        }
        expectsContinue = expectation != nil && bodyLength != 0 && head.version != .http1_0
        // After an offer to switch protocols the decoder takes what follows for another protocol, which we don't speak.
        keepsAlive = head.isKeepAlive && head.method != .CONNECT && !headers.contains(name: "Upgrade")
    }

    private static func malformed(_ why: String) -> MatrixError {
        MatrixError(.unknown, "This isn't a valid HTTP request. \(why)", status: 400)
    }
}
