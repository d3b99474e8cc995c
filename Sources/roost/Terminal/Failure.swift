import Glibc

/// Why the program ends without having done what it was asked: a sentence for the person who asked, and an exit status.
struct Failure: Error {
    /// `sysexits.h`: something was found in an unconfigured or misconfigured state.
    static let configurationStatus: CInt = 78

    let message: String
    let status: CInt

    init(_ message: String, status: CInt = 1) {
        self.message = message
        self.status = status
    }
}

/// What the program says to a person.
enum Terminal {
    /// For answers: what was asked for.
    static func say(_ text: String) { write(text + "\n", to: STDOUT_FILENO) }

    /// For failures and remarks.
    static func complain(_ text: String) { write(text + "\n", to: STDERR_FILENO) }

    static func write(_ text: String, to descriptor: CInt) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno != EINTR { return }
            bytes = bytes.dropFirst(max(count, 0))
        }
    }
}
