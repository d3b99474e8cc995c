import Database
import MatrixCore

/// What an event is to the members of its room: judged once by the push rules that everybody starts with, and for each of
/// those who are mentioned, follow its thread or have rules of their own (Client-Server API, "Receiving notifications").
struct NotificationVerdict: Sendable {
    /// nil: it notifies nobody but those listed.
    var mark: NotifyingMark?
    /// The root of the thread that it is in; 0 for the main timeline.
    var thread = EventNID(0)
    /// To whom it is something else than to everybody.
    var exceptions: [(user: UserNID, outcome: NotificationRow.Outcome)] = []
}

/// Judges events as they are added to a room.
final class NotificationJudge: Sendable {
    let database: Database
    let serverName: ServerName
    let watchers: RoomWatchers
    let pushRules: PushRuleService

    /// Somebody without a name, whom nothing mentions: what notifies them notifies everybody.
    private let anybody: PushRuleSet
    /// Mentions of one event that are looked at.
    private static let mostMentions = 500

    init(database: Database, serverName: ServerName, pushRules: PushRuleService) {
        self.database = database
        self.serverName = serverName
        self.pushRules = pushRules
        anybody = pushRules.defaults(for: UserID(unchecked: "@:"))
        watchers = RoomWatchers(database: database)
    }

    func judge(_ event: Event, in draft: inout RoomDraft, _ reader: any Reader) async throws -> NotificationVerdict {
        var verdict = NotificationVerdict()
        var people = try await watchers.watchers(of: draft.record.nid, reader)
        people.formUnion(try await mentioned(by: event, in: &draft))
        let sender = try await database.number(ofUser: event.sender)
        // In which thread an event is that notifies nobody matters only where people follow threads.
        let thread = pushRules.followsThreads ? try await thread(of: event, in: draft) : nil
        var followers: Set<UserNID> = []
        if let thread {
            followers = Set(try await database.followers(of: thread, in: draft.record.nid, reader))
            people.formUnion(followers)
        }
        people.remove(sender)
        var context = PushContext(
            memberCount: 3, displayName: nil, powerLevels: try await levels(for: event, &draft),
            isSubscribedToThread: thread.map { _ in false })
        let everybody = anybody.matchingRule(for: event, in: context)?.actions ?? .none
        if everybody.notify {
            verdict.mark = NotifyingMark(thread: EventNID(0), highlights: everybody.highlight)
        }
        if !people.isEmpty {
            context.memberCount = try await database.joinedMembers(of: draft.record.nid, reader)
            for (nid, user) in try await database.users(Array(people)).sorted(by: { $0.key < $1.key }) {
                let rules = try await pushRules.compiled(for: user, nid)
                context.displayName = try await draft.state(.member(user))?.content["displayname"]?.string
                context.isSubscribedToThread = thread.map { _ in followers.contains(nid) }
                let actions = rules.actions(
                    for: event, user: user, in: context, otherwise: pushRules.defaults(for: user))
                var outcome: NotificationRow.Outcome = []
                if actions.notify { outcome.insert(.notifies) }
                if actions.highlight { outcome.insert(.highlights) }
                var expected: NotificationRow.Outcome = []
                if everybody.notify, !rules.mutes(draft.record.roomID) {
                    expected.insert(.notifies)
                    if everybody.highlight { expected.insert(.highlights) }
                }
                if outcome == expected { continue }
                if everybody.notify { outcome.insert(.isMarked) }
                verdict.exceptions.append((nid, outcome))
            }
        }
        // Whoever writes in a thread has read what was before, also where that notifies only some.
        if let thread, thread != EventNID(0), verdict.mark == nil, event.sender.server == serverName {
            verdict.exceptions.append((sender, .isOwn))
        }
        if verdict.mark != nil || !verdict.exceptions.isEmpty {
            let found = pushRules.followsThreads ? thread : try await self.thread(of: event, in: draft)
            verdict.thread = found ?? EventNID(0)
            verdict.mark = verdict.mark.map { NotifyingMark(thread: verdict.thread, highlights: $0.highlights) }
        }
        return verdict
    }

    /// Permissions matter only to what mentions the room, and to rules of users' own.
    private func levels(for event: Event, _ draft: inout RoomDraft) async throws -> PowerLevels {
        if event.type == "m.room.create" { return PowerLevels(event: nil, create: event) }
        return try await draft.powerLevels()
    }

    /// The local members whom an event names, and who is invited by it.
    private func mentioned(by event: Event, in draft: inout RoomDraft) async throws -> [UserNID] {
        var names: [UserID] = []
        if event.type == "m.room.member", event.content["membership"]?.isString("invite") == true,
            let user = event.stateKey.flatMap({ UserID($0) }), user.server == serverName
        {
            names.append(user)
        }
        if let mentions = event.content["m.mentions"]?["user_ids"] {
            for element in mentions.elements.prefix(Self.mostMentions) {
                guard let user = element.string.flatMap({ UserID($0) }), user.server == serverName,
                    try await draft.membership(of: user) == .join
                else { continue }
                names.append(user)
            }
        }
        if names.isEmpty { return [] }
        var numbers: [UserNID] = []
        for name in names { numbers.append(try await database.number(ofUser: name)) }
        return numbers
    }

    /// Relations followed at most to find the thread that an event is in (Client-Server API, "Threaded read receipts").
    private static let mostHops = 3

    /// The root of the thread that an event is in, 0 if that isn't here; nil for the main timeline.
    private func thread(of event: Event, in draft: RoomDraft) async throws -> EventNID? {
        var event = event
        for _ in 0..<Self.mostHops {
            guard let (parent, type) = RoomDraft.relation(of: event) else { return nil }
            guard let stored = try await draft.storedEvent(parent), stored.room == draft.record.nid else {
                return type == "m.thread" ? EventNID(0) : nil
            }
            if type == "m.thread" { return stored.nid }
            event = try draft.context.parse(stored, draft.version)
        }
        return nil
    }
}
