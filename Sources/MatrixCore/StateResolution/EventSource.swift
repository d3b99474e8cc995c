/// Where state resolution gets events from: the caller's database or cache.
///
/// An answer must not change while a resolution runs.
public protocol EventSource {
    /// The event, nil if it isn't known.
    func event(_ id: EventID) -> Event?
    /// Whether the event was rejected when it was received.
    func isRejected(_ id: EventID) -> Bool
}

/// An ``EventSource`` made of functions.
public struct EventLookup: EventSource {
    private let find: (EventID) -> Event?
    private let rejected: (EventID) -> Bool

    public init(_ find: @escaping (EventID) -> Event?, isRejected: @escaping (EventID) -> Bool = { _ in false }) {
        self.find = find
        rejected = isRejected
    }

    public init(_ events: [EventID: Event], rejected: Set<EventID> = []) {
        self.init({ events[$0] }, isRejected: { rejected.contains($0) })
    }

    public func event(_ id: EventID) -> Event? { find(id) }
    public func isRejected(_ id: EventID) -> Bool { rejected(id) }
}

/// The state of a room: which event stands at a key.
public typealias StateMap = [StateKey: EventID]

/// How much work a resolution may cause. What peers can make grow is bounded here; a room that exceeds this is not resolved.
public struct StateResolutionLimits: Sendable, Hashable {
    /// How many states are resolved at once. An event has at most 20 previous events.
    public var maxStates: Int
    /// How many different events are looked at.
    public var maxEvents: Int
    /// How many steps along auth events are taken.
    public var maxSteps: Int

    public init(maxStates: Int = 100, maxEvents: Int = 500_000, maxSteps: Int = 20_000_000) {
        self.maxStates = maxStates
        self.maxEvents = maxEvents
        self.maxSteps = maxSteps
    }
}

/// Why states could not be resolved.
public enum StateResolutionError: Error, Sendable, Hashable, CustomStringConvertible {
    /// An event of one of the states is not known.
    case missingEvent(EventID)
    /// An event of the states or their auth chains belongs to another room or room version.
    case eventOfAnotherRoom(EventID)
    case tooManyStates(Int)
    case tooMuchWork

    public var description: String {
        switch self {
        case .missingEvent(let id): "the event \(id) of a state to resolve is not known"
        case .eventOfAnotherRoom(let id): "the event \(id) of a state to resolve belongs to another room"
        case .tooManyStates(let count): "\(count) states are too many to resolve at once"
        case .tooMuchWork: "the auth chains of the states are too large to resolve"
        }
    }
}
