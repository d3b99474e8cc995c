import Database
import MatrixCore

/// What is shown of an event's children with it, to somebody who may not see all of them: who has left doesn't see how the
/// thread went on, nor the last edit (Client-Server API, "Aggregations of child events", "Room History Visibility").
extension ClientEvents {
    /// Children that are looked at, newest first, where not all may be seen.
    private static let mostChildren = 1_000
    private static let mostReferences = 100

    func summary(
        of event: StoredEvent, for user: UserNID, _ visibility: inout EventVisibility, _ reader: any Reader
    ) async throws -> Database.RelationSummary? {
        guard let summary = try await context.database.relationSummary(of: event, for: user, reader) else { return nil }
        let newest = try await context.database.events(
            [summary.edit, summary.thread?.latest].compactMap { $0 }, reader)
        var seesAll = visibility.access.leftAt == nil
        for child in newest where seesAll { seesAll = try await visibility.allows(child) }
        return seesAll ? summary : try await visibleSummary(of: event, for: user, &visibility, reader)
    }

    private func visibleSummary(
        of event: StoredEvent, for user: UserNID, _ visibility: inout EventVisibility, _ reader: any Reader
    ) async throws -> Database.RelationSummary {
        let children = try await context.database.children(
            of: event.eventID, in: event.room, from: .init(depth: .max, position: .max), backwards: true,
            limit: Self.mostChildren,
            reader)
        let types = Dictionary(children.map { ($0.event, $0.type) }) { first, _ in first }
        var summary = Database.RelationSummary()
        var edit: StoredEvent?
        for child in try await context.database.events(children.map(\.event), reader)
        where try await visibility.allows(child) {
            switch types[child.nid] {
            case "m.replace"
            where event.mayBeEdited && child.sender == event.sender && child.type == event.type
                && child.stateKey == nil && child.isEdit:
                let isNewer = edit.map { (child.originServerTS, child.eventID) > ($0.originServerTS, $0.eventID) }
                if isNewer ?? true { edit = child }
            case "m.thread":
                let known = summary.thread ?? (latest: child.nid, count: 0, participated: event.sender == user)
                summary.thread = (known.latest, known.count + 1, known.participated || child.sender == user)
            case "m.reference":
                if summary.references.count < Self.mostReferences { summary.references.append(child.eventID) }
            default: break
            }
        }
        summary.edit = edit?.nid
        summary.references.reverse()
        return summary
    }
}
