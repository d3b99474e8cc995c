import Database
import MatrixCore

/// The way in for events of other servers, whichever answer or request brings them (A06): format, signatures and hashes
/// (Server-Server API, "Checks performed on receipt of a PDU", 1 to 3).
struct EventIntake: Sendable {
    let keys: ServerKeyRing

    /// An event that can't be taken.
    struct Refused: Error, CustomStringConvertible {
        let description: String
    }

    /// Reads and checks events; those with a wrong hash are redacted.
    ///
    /// - Parameter roomID: the room that they must be of.
    /// - Returns: for each the event, or why it must be dropped.
    func check(
        _ events: [JSONView], in roomID: RoomID, _ version: RoomVersion
    ) async throws -> [Result<Event, Refused>] {
        var results: [Result<Event, Refused>] = events.map { view in
            do throws(EventError) {
                let event = try Event(receiving: Array(view.raw), version: version)
                guard event.roomID == roomID else {
                    return .failure(Refused(description: "The event is of another room."))
                }
                return .success(event)
            } catch {
                return .failure(
                    Refused(description: "This is no event of room version \(version.identifier): \(error)"))
            }
        }
        let read = results.enumerated().compactMap { index, result in
            (try? result.get()).map { (index: index, event: $0) }
        }
        let lookup = try await keys.keys(for: read.map(\.event))
        let verdicts = await SignatureChecking.verdicts(on: read.map(\.event), key: lookup)
        for ((index, event), verdict) in zip(read, verdicts) {
            switch verdict {
            case .valid: results[index] = .success(event.contentHashMatches() ? event : event.redacted())
            case .noKnownKey(let server):
                results[index] = .failure(
                    Refused(description: "The event is not signed by \(server) with a key that can be had."))
            case .invalid(let server):
                results[index] = .failure(Refused(description: "The signature of \(server) is wrong."))
            }
        }
        return results
    }

    /// The events that can be taken, those that name one another as auth events in such an order that each comes behind what it
    /// names.
    func valid(_ events: [JSONView], in roomID: RoomID, _ version: RoomVersion) async throws -> [Event] {
        let valid = try await check(events, in: roomID, version).compactMap { try? $0.get() }
        let sorted = Self.sorted(valid, by: \.authEvents)
        // Which from version 12 on nobody names.
        return sorted.filter { $0.type == "m.room.create" } + sorted.filter { $0.type != "m.room.create" }
    }

    /// Events in an order in which each comes behind those that it names.
    static func sorted(_ events: [Event], by names: (Event) -> [EventID]) -> [Event] {
        let byID = Dictionary(events.map { ($0.eventID, $0) }) { first, _ in first }
        var done = Set<EventID>()
        var begun = Set<EventID>()
        var order: [Event] = []
        for event in events {
            var stack = [event.eventID]
            while let id = stack.last {
                guard !done.contains(id), let event = byID[id] else {
                    stack.removeLast()
                    continue
                }
                if begun.insert(id).inserted {
                    stack += names(event).filter { byID[$0] != nil && !begun.contains($0) }
                } else {
                    stack.removeLast()
                    done.insert(id)
                    order.append(event)
                }
            }
        }
        return order
    }
}
