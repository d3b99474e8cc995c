import Database
import MatrixCore
import Synchronization

/// What all that is done with rooms needs: the database, who this server is, and with which key it signs.
final class RoomContext: Sendable {
    let database: Database
    let serverName: ServerName
    let signingKeys: SigningKeys
    var signingKey: SigningKey { signingKeys.current }
    let surroundings: Surroundings
    /// A name of this process, which no other one on the same database has.
    let node: String
    /// How long what was redacted is kept, in milliseconds.
    let keepRedacted: Int64
    /// When the database was restored from a backup, in milliseconds; nil if it never was.
    let restoredAt: Int64?
    let notifications: NotificationJudge
    let ignored: IgnoredUsers
    let erasures: Erasures
    let appservices: Appservices

    let glances: RoomGlances

    /// Parsed events that were looked at lately: state events, mostly, which authorise what comes next. The lock protects
    /// the cache alone.
    private let parsed = Mutex(BoundedCache<EventNID, Event>(capacity: 8 << 20))

    init(
        database: Database, serverName: ServerName, signingKeys: SigningKeys, surroundings: Surroundings, node: String,
        keepRedacted: Int64, restoredAt: Int64?, notifications: NotificationJudge, ignored: IgnoredUsers,
        erasures: Erasures, appservices: Appservices
    ) {
        self.ignored = ignored
        self.notifications = notifications
        self.erasures = erasures
        self.appservices = appservices
        self.keepRedacted = keepRedacted
        self.restoredAt = restoredAt
        self.database = database
        glances = RoomGlances(database: database)
        self.serverName = serverName
        self.signingKeys = signingKeys
        self.surroundings = surroundings
        self.node = node
    }

    /// The event has other bytes now, or is gone.
    func forget(_ nid: EventNID) { parsed.withLock { $0.remove(nid) } }

    /// The event that is stored, as the protocol sees it.
    func parse(_ stored: StoredEvent, _ version: RoomVersion) throws -> Event {
        if let event = parsed.withLock({ $0[stored.nid] }), event.version == version { return event }
        let event: Event
        do {
            event = try Event(stored: stored.json, eventID: stored.eventID, version: version)
        } catch {
            throw DatabaseError.corrupt("event \(stored.eventID) can't be read: \(error)")
        }
        parsed.withLock { $0.insert(event, for: stored.nid, size: 2 * stored.json.count + 500) }
        return event
    }

    /// The content of a stored event as it is shown: without what a redaction took away.
    func shownContent(of stored: StoredEvent, _ version: RoomVersion) throws -> JSONView {
        let event = try parse(stored, version)
        return stored.redactedBy == nil ? event.content : event.redacted().content
    }

    func sign(_ template: EventTemplate) throws -> Event {
        do {
            return try template.signed(by: signingKey, as: serverName)
        } catch .tooLarge {
            throw MatrixError.tooLarge("The event is larger than the 65,536 bytes that an event may have.")
        } catch .fieldTooLong(let field) {
            throw MatrixError.tooLarge("The event's \(field) is longer than 255 bytes.")
        } catch {
            throw MatrixError.badJSON("This can't become an event: \(error).")
        }
    }
}
