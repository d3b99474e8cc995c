/// What of a connection URI nobody may read in a message: its password. libpq quotes what it doesn't understand, and of a password
/// with a character that should have been encoded it doesn't understand a part.
struct PostgreSQLSecret {
    private let pieces: [Substring]

    init(url: String) {
        var passwords: [Substring] = []
        if let scheme = url.firstRange(of: "://") {
            let rest = url[scheme.upperBound...]
            if let at = rest.lastIndex(of: "@"), let colon = rest[..<at].firstIndex(of: ":") {
                passwords.append(rest[rest.index(after: colon)..<at])
            }
        }
        for named in url.ranges(of: "password=") {
            passwords.append(url[named.upperBound...].prefix { $0 != "&" && $0 != " " })
        }
        pieces = passwords.flatMap { password in
            [password] + password.split { "/:@?#[]&=%".contains($0) }.filter { $0.count > 1 }
        }.filter { !$0.isEmpty }.sorted { $0.count > $1.count }
    }

    func hidden(in message: String) -> String {
        pieces.reduce(message) { $0.replacing($1, with: "…") }
    }
}
