import Database
import Synchronization

/// How often somebody may do something: a bucket of tokens for each account or address and kind of request. The numbers
/// are such that a person never meets them.
public final class RateLimiter: Sendable {
    /// A kind of request, with what its buckets hold.
    public enum Kind: Hashable, Sendable {
        case general, login, registration, message, join, invite, media, report
        /// Wrong passwords of one account.
        case password
        /// Servers that nothing is known of, which this one asks for their keys on behalf of one address.
        case unknownServers

        /// Requests a second in the long run, and at once.
        var budget: (perSecond: Double, burst: Double) {
            switch self {
            case .general: (50, 500)
            case .login: (0.2, 10)
            case .registration: (0.1, 10)
            case .message: (10, 100)
            case .join: (1, 30)
            case .invite: (1, 60)
            case .media: (10, 100)
            case .report: (0.1, 20)
            case .password: (0.1, 20)
            case .unknownServers: (2, 200)
            }
        }
    }

    private struct Key: Hashable {
        let who: String
        let kind: Kind
    }

    private struct Bucket: Sendable {
        var tokens: Double
        var asOf: Int64
    }

    private let isEnabled: Bool
    private let surroundings: Surroundings
    /// The lock protects the table; nothing is awaited while it is held. Bounded: a bucket that drops out is a full one.
    private let buckets = Mutex(BoundedCache<Key, Bucket>(capacity: 100_000))

    init(isEnabled: Bool, surroundings: Surroundings) {
        self.isEnabled = isEnabled
        self.surroundings = surroundings
    }

    /// Takes a token of somebody's bucket.
    ///
    /// - Parameter who: an account's ID, or an address.
    /// - Throws: `M_LIMIT_EXCEEDED` with the time until there is one, if there is none.
    public func take(_ kind: Kind, for who: @autoclosure () -> String) throws {
        guard isEnabled else { return }
        let key = Key(who: who(), kind: kind)
        let now = surroundings.now()
        let (perSecond, burst) = kind.budget
        let missing: Double? = buckets.withLock { buckets in
            var bucket = buckets[key] ?? Bucket(tokens: burst, asOf: now)
            bucket.tokens = min(burst, bucket.tokens + Double(max(0, now - bucket.asOf)) / 1_000 * perSecond)
            bucket.asOf = now
            defer { buckets.insert(bucket, for: key, size: 1) }
            if bucket.tokens < 1 { return 1 - bucket.tokens }
            bucket.tokens -= 1
            return nil
        }
        if let missing {
            throw MatrixError.limitExceeded(retryAfterMS: Int((missing / perSecond * 1_000).rounded(.up)))
        }
    }

    /// Puts a token back that was taken for something that turned out not to count.
    func giveBack(_ kind: Kind, for who: @autoclosure () -> String) {
        guard isEnabled else { return }
        let key = Key(who: who(), kind: kind)
        buckets.withLock { buckets in
            guard var bucket = buckets[key] else { return }
            bucket.tokens = min(kind.budget.burst, bucket.tokens + 1)
            buckets.insert(bucket, for: key, size: 1)
        }
    }
}
