import MatrixCore

/// A question to many servers. Those that take long hold up nobody else, and nobody waits for them beyond a deadline.
struct Inquiry {
    let surroundings: Surroundings
    /// Milliseconds since 1970.
    let deadline: Int64

    /// Servers that are asked at the same time; those that have not answered after a second don't count, up to so many.
    private static let atOnce = 20
    private static let mostSlow = 200
    private static let slowAfter: Int64 = 1_000

    private enum News: Sendable {
        case answered(ServerName)
        case isSlow(ServerName)
        case timeIsUp
    }

    /// Whether there is time left to ask anything.
    var isOpen: Bool { timeLeft > 0 }
    /// Milliseconds.
    var timeLeft: Int64 { deadline - surroundings.now() }

    /// Asks the servers, and returns when all have answered or time is up.
    ///
    /// - Parameter ask: asks one, and keeps what it says. It may still be at it afterwards; what it keeps then is not waited for.
    /// - Returns: those that have answered.
    func ask(_ servers: [ServerName], _ ask: @escaping @Sendable (ServerName) async -> Void) async -> Set<ServerName> {
        let (stream, news) = AsyncStream<News>.makeStream()
        var waiting = servers[...]
        var quick: [ServerName: Surroundings.Cancel] = [:]
        var slow: Set<ServerName> = []
        var answered: Set<ServerName> = []
        func begin() {
            while quick.count < Self.atOnce, slow.count < Self.mostSlow, let server = waiting.popFirst() {
                quick[server] = surroundings.after(Self.slowAfter) { news.yield(.isSlow(server)) }
                Task {
                    await ask(server)
                    news.yield(.answered(server))
                }
            }
        }
        if servers.isEmpty { return [] }
        let cancel = surroundings.after(max(timeLeft, 0)) { news.yield(.timeIsUp) }
        defer {
            cancel()
            for cancel in quick.values { cancel() }
        }
        begin()
        for await one in stream {
            switch one {
            case .answered(let server):
                answered.insert(server)
                quick.removeValue(forKey: server)?()
                slow.remove(server)
                if answered.count == servers.count { return answered }
            case .isSlow(let server):
                if quick.removeValue(forKey: server) != nil { slow.insert(server) }
            case .timeIsUp: return answered
            }
            begin()
        }
        return answered
    }
}
