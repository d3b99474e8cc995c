import Testing

@testable import MatrixCore

@Suite("A room's first events") struct RoomStartTests {
    @Test("the events that begin a room are allowed in every version", arguments: RoomVersion.all)
    func start(version: RoomVersion) throws {
        let room = try RoomBuilder.room(version)
        var state: [StateKey: Event] = [:]
        for event in room.events {
            try Authorization.check(event) { state[$0] }
            let auth = room.events.filter { event.authEvents.contains($0.eventID) }
            try Authorization.checkAuthEvents(event, authEvents: auth)
            if let key = event.stateMapKey { state[key] = event }
        }
        #expect(state.count == 4)
    }
}
