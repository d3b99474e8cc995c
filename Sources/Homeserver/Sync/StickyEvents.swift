import Database
import MatrixCore

/// Events that everybody in a room must get until a time, whatever the limits of timelines (MSC4354).
public enum StickyEvents {
    /// How long an event can be sticky, in milliseconds.
    public static let longest: Int64 = 3_600_000
    /// The name of the event's member, as long as the proposal is one.
    static let member = "msc4354_sticky"

    /// How long an event wants to be sticky; nil if it doesn't.
    static func duration(of event: Event) -> Int64? {
        guard let duration = event.root[member]?["duration_ms"]?.integer, (0...longest).contains(duration) else {
            return nil
        }
        return duration
    }

    /// Until when an event is sticky that was received at a time: a sender's clock can't put it off.
    static func end(of event: Event, receivedAt now: Int64) -> Int64? {
        duration(of: event).map { min(now, event.originServerTS) + $0 }
    }

    /// Those of some sticky events that a member is told. History visibility does not count for them.
    ///
    /// - Parameter shown: events that the timeline of the same answer shows.
    static func read(
        _ numbers: [EventNID], besides shown: Set<EventNID> = [], for user: UserNID, _ context: RoomContext,
        _ reader: any Reader
    ) async throws -> [StoredEvent] {
        let numbers = numbers.filter { !shown.contains($0) }
        if numbers.isEmpty { return [] }
        let ignored = try await context.ignored.list(of: user)
        // Redacted, it is an event like others.
        return try await context.database.events(numbers, reader).filter {
            $0.redactedBy == nil && !ignored.contains($0.sender) && $0.flags.isDisjoint(with: .hidden)
        }
    }
}
