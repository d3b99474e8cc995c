import CResolver
import Database
import Homeserver
import NIOCore
import Synchronization

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Asks the machine's resolver, which blocks: on threads of its own.
struct NameResolver: Sendable {
    /// A service record (RFC 2782).
    struct Service: Sendable, Hashable {
        var priority: UInt16
        var weight: UInt16
        var port: UInt16
        var target: String
        /// Seconds for which it is good.
        var lifetime: Int64
    }

    /// The addresses of a host, and whether a name has service records. Replaced in tests.
    var addresses: @Sendable (String) async throws -> [IPAddress]
    var services: @Sendable (String) async throws -> [Service]

    /// Records that are read at most.
    private static let mostServices: Int32 = 16

    static func system() -> NameResolver {
        let threads = ResolverThreads()
        return NameResolver(
            addresses: { host in try await threads.run(host) { try Self.find(host) } },
            services: { name in try await threads.run(name) { try Self.findServices(name) } })
    }

    private static func find(_ host: String) throws -> [IPAddress] {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        let status = getaddrinfo(host, nil, &hints, &list)
        guard status == 0 else {
            throw TransportError(.unreachable, "\(host) has no address (\(String(cString: gai_strerror(status))))")
        }
        defer { freeaddrinfo(list) }
        var found: [IPAddress] = []
        var next = list
        while let entry = next {
            var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
            if getnameinfo(
                entry.pointee.ai_addr, entry.pointee.ai_addrlen, &text, socklen_t(text.count), nil, 0, NI_NUMERICHOST)
                == 0, let end = text.firstIndex(of: 0),
                let address = IPAddress(String(decoding: text[..<end].map { UInt8(bitPattern: $0) }, as: UTF8.self)),
                !found.contains(address)
            {
                found.append(address)
            }
            next = entry.pointee.ai_next
        }
        return found
    }

    private static func findServices(_ name: String) throws -> [Service] {
        var found = [roost_service](repeating: roost_service(), count: Int(mostServices))
        let count = roost_find_services(name, &found, mostServices)
        guard count >= 0 else { throw TransportError(.unreachable, "nobody could tell the service records of \(name)") }
        return found.prefix(Int(count)).map { record in
            var record = record
            let target = withUnsafeBytes(of: &record.target) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            return Service(
                priority: record.priority, weight: record.weight, port: record.port, target: target,
                lifetime: Int64(record.ttl))
        }
    }
}

/// Threads for what blocks. Each lookup goes to the thread with the fewest: names that take their time hold up few others. Names that
/// were found at once before have threads of their own: strangers may have any number of names looked up whose servers never answer (A16).
final class ResolverThreads: Sendable {
    private typealias Job = @Sendable () -> Void
    private let threads: [WorkThread<Job>]
    /// The threads of names that were found before, and of others.
    private let known: Range<Int>
    private let others: Range<Int>
    /// How many lookups wait for one thread at most, and for how long: nobody waits for one that took longer.
    private static let mostWaiting = 50
    private static let longestWait: TimeAmount = .seconds(10)
    /// Who answers within this time is known.
    private static let quick: TimeAmount = .seconds(1)

    private struct State {
        var loads: [Int]
        var found = BoundedCache<String, Bool>(capacity: 20_000)
    }

    /// The lock protects the counts and the names; nothing is awaited while it is held.
    private let state: Mutex<State>

    init(known: Int = 8, others: Int = 16) {
        self.known = 0..<known
        self.others = known..<known + others
        threads = (0..<known + others).map { _ in WorkThread(most: 1) { jobs in for job in jobs { job() } } }
        state = Mutex(State(loads: [Int](repeating: 0, count: known + others)))
    }

    /// Looks something up.
    ///
    /// - Throws: ``TransportError/Kind/busy`` if too much else is looked up; what the work throws.
    func run<T: Sendable>(_ name: String, _ work: @escaping @Sendable () throws -> T) async throws -> T {
        let index: Int? = state.withLock { state in
            let own = state.found[name] == nil ? others : known
            guard let index = own.min(by: { state.loads[$0] < state.loads[$1] }),
                state.loads[index] < Self.mostWaiting
            else { return nil }
            state.loads[index] += 1
            return index
        }
        guard let index else { throw TransportError(.busy, "too many names are being looked up") }
        defer { state.withLock { $0.loads[index] -= 1 } }
        let deadline = NIODeadline.now() + Self.longestWait
        return try await withCheckedThrowingContinuation { continuation in
            let added = threads[index].add { [self] in
                let began = NIODeadline.now()
                guard began < deadline else {
                    let late = TransportError(.busy, "it takes too long to look up names")
                    return continuation.resume(throwing: late)
                }
                let result = Result { try work() }
                let isQuick = NIODeadline.now() - began < Self.quick
                state.withLock { state in
                    if isQuick, case .success = result {
                        state.found.insert(true, for: name, size: 1)
                    } else {
                        state.found.remove(name)
                    }
                }
                continuation.resume(with: result)
            }
            if !added { continuation.resume(throwing: TransportError(.unreachable, "the server is stopping")) }
        }
    }
}
