import Database
import Logging
import MatrixCore

/// Fills the table of relations with those of events that were stored before there was one (schema 2), in the background.
struct RelationFilling: Sendable {
    let rooms: RoomRegistry
    let node: String

    static let name = "relations"
    private static let batch = 200
    private static let leaseTime: Int64 = 60_000

    private var database: Database { rooms.database }

    /// Does one batch.
    ///
    /// - Returns: whether more is to be done here; false also while another node is at it.
    func step() async throws -> Bool {
        guard let cursor = try await database.backgroundMigration(Self.name) else { return false }
        let now = rooms.context.surroundings.now()
        let lease = try await database.lease(
            "migration \(Self.name)", holder: node, now: now, duration: Self.leaseTime)
        guard let lease else { return false }
        let events = try await database.events(after: cursor, limit: Self.batch)
        var write = Write()
        write.require(lease)
        for stored in events where stored.redactedBy == nil && stored.flags.isDisjoint(with: .hidden) {
            let version = try await rooms.room(stored.room).version
            guard let event = try? rooms.context.parse(stored, version),
                let (parent, type) = RoomDraft.relation(of: event)
            else { continue }
            write.relate(stored, to: parent, type: type)
            if let known = try await database.event(parent) { write.topics.append(.event(known.nid)) }
        }
        if let last = events.last {
            write.advanceBackgroundMigration(Self.name, to: last.nid.rawValue)
        } else {
            write.finishBackgroundMigration(Self.name)
            write.release(lease)
        }
        try await database.write(write)
        return !events.isEmpty
    }

    /// Does all of it.
    func run() async throws { while try await step() {} }
}
