import Synchronization

/// Lets those who want to know the same at the same time find it out once: a room's members are all woken by the same message, and
/// none of them has looked yet.
///
/// Whoever finds out must not wait for those who wait for it, who may hold what a read needs: it asks in a read within theirs.
final class SingleFlight<Key: Hashable & Sendable>: Sendable {
    /// Who waits, by what is being found out. The lock protects the table; nothing is awaited while it is held.
    private let underWay = Mutex<[Key: [CheckedContinuation<Void, Never>]]>([:])

    /// - Parameters:
    ///   - known: what is known already.
    ///   - find: finds it out, and sees to it that it is known then.
    func value<T>(_ key: Key, known: () -> T?, find: () async throws -> T) async throws -> T {
        while true {
            if let value = known() { return value }
            guard await leads(key) else { continue }
            defer { end(key) }
            // It may have become known since.
            if let value = known() { return value }
            return try await find()
        }
    }

    /// Whether it is for the caller to find out; otherwise somebody else has done so when this returns.
    private func leads(_ key: Key) async -> Bool {
        let isFree = underWay.withLock { underWay in
            if underWay[key] != nil { return false }
            underWay[key] = []
            return true
        }
        if isFree { return true }
        await withCheckedContinuation { continuation in
            let waits = underWay.withLock { underWay in
                underWay[key]?.append(continuation) != nil
            }
            if !waits { continuation.resume() }
        }
        return false
    }

    private func end(_ key: Key) {
        for waiting in underWay.withLock({ $0.removeValue(forKey: key) }) ?? [] { waiting.resume() }
    }
}
