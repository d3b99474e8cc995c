/// The part of a room's auth event graph that a resolution has looked at: events by small numbers, loaded once.
///
/// Auth events that are not known are left out: a room whose auth chain has a hole must not stand still for ever. An
/// auth event of another room is not followed, so that nobody can lead a resolution into a graph that isn't the room's (A03).
struct AuthGraph<Source: EventSource> {
    private let source: Source
    private let version: RoomVersion
    private let limits: StateResolutionLimits
    private var numbers: [EventID: Int] = [:]
    private(set) var events: [Event] = []
    private var edges: [[Int]?] = []
    private var steps = 0
    /// The room of the first event; all others have to be of the same.
    private var roomID: RoomID?

    init(source: Source, version: RoomVersion, limits: StateResolutionLimits) {
        self.source = source
        self.version = version
        self.limits = limits
    }

    /// The number of an event, nil if it isn't known.
    mutating func number(of id: EventID) throws(StateResolutionError) -> Int? {
        if let number = numbers[id] { return number < 0 ? nil : number }
        guard numbers.count < limits.maxEvents else { throw .tooMuchWork }
        guard let event = source.event(id), event.eventID == id, event.version == version,
            event.roomID == (roomID ?? event.roomID)
        else {
            numbers[id] = -1
            return nil
        }
        roomID = event.roomID
        numbers[id] = events.count
        events.append(event)
        edges.append(nil)
        return events.count - 1
    }

    /// The number of an event that has to be there.
    mutating func required(_ id: EventID) throws(StateResolutionError) -> Int {
        if let number = try number(of: id) { return number }
        throw source.event(id) == nil ? .missingEvent(id) : .eventOfAnotherRoom(id)
    }

    /// The auth events of an event.
    mutating func authEvents(of number: Int) throws(StateResolutionError) -> [Int] {
        steps += 1
        guard steps <= limits.maxSteps else { throw .tooMuchWork }
        if let known = edges[number] { return known }
        var found: [Int] = []
        for id in events[number].authEvents {
            if let auth = try self.number(of: id), !found.contains(auth) { found.append(auth) }
        }
        edges[number] = found
        return found
    }

    /// Rejected events are no ground for others.
    func isRejected(_ number: Int) -> Bool { source.isRejected(events[number].eventID) }

    /// The create event of the room: named by the room ID, or an auth event.
    mutating func createEvent(for number: Int) throws(StateResolutionError) -> Int? {
        if let id = events[number].roomID.createEventID { return try self.number(of: id) }
        return try authEvents(of: number).first { isAt($0, .create) }
    }

    /// The power levels event among the auth events.
    mutating func powerLevels(of number: Int) throws(StateResolutionError) -> Int? {
        try authEvents(of: number).first { isAt($0, .powerLevels) }
    }

    private func isAt(_ number: Int, _ key: StateKey) -> Bool { events[number].stateMapKey == key }

    /// All events that can be reached from `starts` along auth events, `starts` included.
    ///
    /// - Parameter bounds: which events may be on the way; nil for all.
    mutating func reachable(from starts: [Int], within bounds: Set<Int>? = nil) throws(StateResolutionError) -> Set<Int>
    {
        var seen = Set(starts)
        var open = starts
        while let number = open.popLast() {
            for auth in try authEvents(of: number) where bounds?.contains(auth) ?? true && seen.insert(auth).inserted {
                open.append(auth)
            }
        }
        return seen
    }
}
