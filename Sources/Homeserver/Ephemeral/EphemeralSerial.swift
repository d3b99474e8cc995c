import Synchronization

/// Numbers the changes of what is kept in memory only (typing, presence): by them syncs know what they have told.
final class EphemeralSerial: Sendable {
    private let last = Atomic<Int64>(0)

    /// The number of the last change anywhere.
    var current: Int64 { last.load(ordering: .acquiring) }

    func next() -> Int64 { last.add(1, ordering: .acquiringAndReleasing).newValue }
}
