import Database
import MatrixCore

/// What waits for one server.
struct FederationQueue {
    /// Events, oldest first.
    var events: [Database.OutgoingEvent] = []
    var edus: [EDU] = []
    /// Messages to its devices wait in the database.
    var hasToDevice = false
    /// It has been away, and is to be told what is behind this position before anything else.
    var behind: Int64?
    /// Whether somebody is sending.
    var isRunning = false
    /// A transaction that was tried and not taken: it is repeated as it is.
    var frozen: FederationTransaction?
    /// The first position of what is being made a transaction of.
    var taken: Int64?
    /// Takes back the next attempt.
    var retry: Surroundings.Cancel?
    /// Whether the database knows that it fails.
    var isNoted = false

    /// Events and EDUs that are kept in memory for one server; beyond, it is behind, and what it missed is looked up.
    static let mostEvents = 500
    static let mostEDUs = 1_000

    var isEmpty: Bool {
        events.isEmpty && edus.isEmpty && !hasToDevice && behind == nil && frozen == nil && taken == nil
    }

    mutating func add(_ event: Database.OutgoingEvent) {
        if behind != nil { return }
        if events.count >= Self.mostEvents { fallBehind() } else { events.append(event) }
    }

    mutating func add(_ edu: EDU) {
        if edu.position != nil, behind != nil { return }
        if let key = edu.key, let index = edus.firstIndex(where: { $0.key == key }) { edus.remove(at: index) }
        if edus.count >= Self.mostEDUs {
            // What passes gives way to what must be told.
            if let index = edus.firstIndex(where: { $0.position == nil }) {
                edus.remove(at: index)
            } else if edu.position == nil {
                return
            } else {
                return fallBehind()
            }
        }
        edus.append(edu)
    }

    private mutating func fallBehind() {
        behind = owedFrom.map { $0 - 1 }
        events = []
        edus.removeAll { $0.position != nil }
    }

    /// Whether what it has missed is to be looked up now: what was found of it before is on its way.
    var isToLookUp: Bool { behind != nil && events.isEmpty && edus.allSatisfy { $0.position == nil } }

    /// The first position of which the server has not been told; nil if it has been told everything.
    var owedFrom: Int64? {
        [behind.map { $0 + 1 }, frozen?.first, taken, Self.first(events, edus)].compactMap { $0 }.min()
    }

    /// The first position that events and EDUs tell of.
    static func first(_ events: some Collection<Database.OutgoingEvent>, _ edus: some Collection<EDU>) -> Int64? {
        [events.first?.position, edus.compactMap(\.position).min()].compactMap { $0 }.min()
    }
}

/// A transaction as it is sent, and sent again.
struct FederationTransaction: Sendable {
    let id: String
    /// Canonical JSON.
    let body: [UInt8]
    /// The first position that it tells of.
    let first: Int64?
    /// The events in it.
    let events: [EventNID]
    /// How many EDUs are in it.
    let edus: Int
    /// The last of the messages to devices in it.
    let toDevice: Database.OutgoingToDevice?
}
