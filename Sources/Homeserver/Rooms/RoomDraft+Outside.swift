import Database
import MatrixCore

/// Rooms that this server isn't in, and users who have to do with them nevertheless.
extension RoomDraft {
    /// What comes next doesn't follow on what was known of the room.
    mutating func forgetExtremities() {
        tips = []
        record.extremities = []
    }

    /// Events by which people here have left the room lately, and of which a state of it doesn't know yet. Who hasn't heard of older ones
    /// isn't waited for.
    ///
    /// - Parameter events: of the state.
    func leaves(unknownTo events: [StoredEvent]) async throws -> [StoredEvent] {
        let departed = try await context.database.departedLocalUsers(
            of: record.nid, limit: Self.mostDeparted, reader)
        let told = Dictionary(events.compactMap { event in event.stateKey.map { ($0, event.nid) } }) { $1 }
        let hearing = context.surroundings.now() - Self.hearing
        var unknown: [StoredEvent] = []
        for leave in try await stored(Set(departed.map(\.event)))
        where leave.stateBefore != nil && leave.originServerTS > hearing {
            guard let key = leave.stateKey, let other = told[key], other != leave.nid else { continue }
            var earlier = leave.replaces
            var steps = 0
            while let nid = earlier, nid != other, steps < Self.mostEarlier {
                earlier = try await stored([nid]).first?.replaces
                steps += 1
            }
            if earlier == other { unknown.append(leave) }
        }
        return unknown
    }

    /// Milliseconds for which it is taken into account that a leave may not have been heard of.
    private static let hearing: Int64 = 3_600_000
    /// Users who are looked at, and member events of each.
    private static let mostDeparted = 100
    private static let mostEarlier = 100

    /// The room's version, as its create event has it. What was claimed before by an invitation counts for nothing.
    ///
    /// - Throws: `M_INVALID_PARAM` if the room is known with another version: nothing of it may be judged by two (A12).
    mutating func prove(_ proven: RoomVersion) throws {
        if version == proven { return }
        guard record.extremities.isEmpty else {
            throw MatrixError.invalidParam("The room is known here with another version.")
        }
        version = proven
        record.version = proven.identifier
    }

    /// A user is invited, or knocks; the event is all that is known of the room.
    mutating func standOutside(_ event: Event, _ membership: StoredMembership, user: UserNID) async throws {
        let stored: StoredEvent
        if let known = try await find([event.eventID])[event.eventID] {
            // It comes again after the user has turned it down, perhaps; nothing is to be undone by that.
            guard known.flags.contains(.outlier) else { return }
            stored = known
        } else {
            stored = try await keep(event, Ground(), flags: .outlier, stateBefore: nil, isJudged: false)
        }
        let position = write.takePosition()
        write.setMembership(membership, of: user, in: record.nid, event: stored.nid, position: position)
        write.topics.append(.user(user))
    }

    /// The user's invitation or knock is over, by an event of the user's or somebody else's. Who has come in meanwhile has taken it up.
    mutating func endOutside(user: UserNID, by event: Event, _ membership: StoredMembership) async throws {
        let current = try await context.database.membership(of: user, in: record.nid, reader)
        if current?.membership == .join { return }
        var known = try await find([event.eventID])[event.eventID]
        if known == nil {
            known = try await keep(
                event, Ground(), flags: .outlier, stateBefore: nil, isJudged: false, replacing: current?.event)
        }
        guard let stored = known else { return }
        let position = write.takePosition()
        let isOwn = try await context.database.number(ofUser: event.sender) == user
        write.setMembership(
            membership, of: user, in: record.nid, event: stored.nid, position: position,
            ending: isOwn ? .wasInvited : [.wasInvited, .byOther])
        write.dropStrippedState(of: record.nid, for: user)
        write.topics.append(.user(user))
    }

    /// The types of state that somebody who is not in the room is shown of it (Client-Server API, "Stripped state").
    static let strippedTypes = [
        "m.room.create", "m.room.join_rules", "m.room.canonical_alias", "m.room.avatar", "m.room.name",
        "m.room.encryption", "m.room.topic",
    ]

    /// What those who are invited and those who knock are shown.
    mutating func strippedState() async throws -> [Event] {
        var events: [Event] = []
        for type in Self.strippedTypes { if let event = try await shownState(StateKey(type)) { events.append(event) } }
        return events
    }
}
