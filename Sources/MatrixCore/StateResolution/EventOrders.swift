/// The two orders of state resolution version 2 (Room Version 2, State resolution, Definitions).
extension StateResolution {
    /// Reverse topological power ordering: every event behind all events of its auth chain, and otherwise the senders with
    /// the most power first, then the earliest, then the smallest event ID. Kahn's algorithm with a heap. Only auth events
    /// among `selected` are seen.
    static func reverseTopologicalPowerOrder<Source: EventSource>(
        of selected: Set<Int>, _ graph: inout AuthGraph<Source>
    ) throws(StateResolutionError) -> [Int] {
        var waitingFor: [Int: Int] = [:]
        var dependents: [Int: [Int]] = [:]
        var ready = Heap<PowerOrderKey>()
        for number in selected {
            let before = try graph.authEvents(of: number).filter { selected.contains($0) }
            for auth in before { dependents[auth, default: []].append(number) }
            waitingFor[number] = before.count
            if before.isEmpty { ready.insert(try powerOrderKey(number, &graph)) }
        }
        var order: [Int] = []
        order.reserveCapacity(selected.count)
        while let next = ready.popMin()?.number {
            order.append(next)
            for dependent in dependents[next] ?? [] {
                guard let count = waitingFor[dependent] else { continue }
                waitingFor[dependent] = count - 1
                if count == 1 { ready.insert(try powerOrderKey(dependent, &graph)) }
            }
        }
        return order
    }

    struct PowerOrderKey: Comparable {
        let power: PowerLevel
        let timestamp: Int64
        let eventID: EventID
        let number: Int

        static func < (x: Self, y: Self) -> Bool {
            if x.power != y.power { return x.power > y.power }
            if x.timestamp != y.timestamp { return x.timestamp < y.timestamp }
            return x.eventID < y.eventID
        }
    }

    /// The sender's power by the event's own auth events.
    private static func powerOrderKey<Source: EventSource>(
        _ number: Int, _ graph: inout AuthGraph<Source>
    ) throws(StateResolutionError) -> PowerOrderKey {
        let event = graph.events[number]
        var power = PowerLevel.finite(0)
        if let create = try graph.createEvent(for: number) {
            let powerLevels = try graph.powerLevels(of: number).map { graph.events[$0] }
            power = PowerLevels(event: powerLevels, create: graph.events[create]).level(of: event.sender)
        }
        return PowerOrderKey(
            power: power, timestamp: event.originServerTS, eventID: event.eventID, number: number)
    }

    /// Mainline ordering: events that rest on the oldest power levels first, then the earliest, then the smallest event ID.
    static func mainlineOrder<Source: EventSource>(
        of events: Set<Int>, powerLevels: Int?, _ graph: inout AuthGraph<Source>
    ) throws(StateResolutionError) -> [Int] {
        // Positions on the mainline; none means that no power levels of the mainline are found, position ∞.
        var positions: [Int: Int?] = [:]
        var next = powerLevels
        var length = 0
        while let number = next, positions[number] == nil {
            positions[number] = length
            length += 1
            next = try graph.powerLevels(of: number)
        }
        var keys: [(position: Int, number: Int)] = []
        for number in events {
            // Follow the power levels up to one whose position is known, and remember it for all on the way.
            var path: [Int] = []
            var current = try graph.powerLevels(of: number)
            var position: Int?
            while let candidate = current {
                if let known = positions[candidate] {
                    position = known
                    break
                }
                path.append(candidate)
                positions[candidate] = .some(nil)
                current = try graph.powerLevels(of: candidate)
            }
            for candidate in path { positions[candidate] = .some(position) }
            keys.append((position ?? Int.max, number))
        }
        return keys.sorted { x, y in
            if x.position != y.position { return x.position > y.position }
            let a = graph.events[x.number]
            let b = graph.events[y.number]
            if a.originServerTS != b.originServerTS { return a.originServerTS < b.originServerTS }
            return a.eventID < b.eventID
        }.map(\.number)
    }
}

/// A binary heap with the smallest element on top.
struct Heap<Element: Comparable> {
    private var elements: [Element] = []

    mutating func insert(_ element: Element) {
        elements.append(element)
        var child = elements.count - 1
        while child > 0, elements[child] < elements[(child - 1) / 2] {
            elements.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    mutating func popMin() -> Element? {
        guard let first = elements.first, let last = elements.popLast() else { return nil }
        if elements.isEmpty { return first }
        elements[0] = last
        var parent = 0
        while true {
            var smallest = parent
            for child in [2 * parent + 1, 2 * parent + 2]
            where child < elements.count && elements[child] < elements[smallest] {
                smallest = child
            }
            if smallest == parent { return first }
            elements.swapAt(parent, smallest)
            parent = smallest
        }
    }
}
