import Database
import MatrixCore
import Synchronization

/// Rooms that somebody here is about to come into by way of another server, and what is told of them meanwhile. To the others this
/// server is there as soon as one of them has let it in, and nobody says twice what they tell it from then on; here it is when
/// the answer has come and is written. Until then events are kept in memory: if the join is lost, so is what was said to it.
final class Arrivals: Sendable {
    /// An event as it was sent, not checked yet.
    struct Told: Sendable {
        let json: [UInt8]
        let server: ServerNID
    }

    enum Keeping: Sendable {
        case kept
        /// There is no room for more.
        case full
        /// Nobody here is about to come into the room.
        case notComing
    }

    private struct Arrival {
        /// Joins that are under way.
        var joins = 0
        /// Of these, those that are being written.
        var writing = 0
        var told: [Told] = []
        var bytes = 0
        /// Who waits until it is known whether what is being written stands.
        var waiting: [CheckedContinuation<Keeping?, Never>] = []
    }

    /// Events of a room that are kept at most, and their bytes.
    private static let mostEvents = 1_000
    private static let mostBytes = 8 << 20

    /// The lock protects the table; nothing is awaited while it is held.
    private let arrivals = Mutex<[RoomID: Arrival]>([:])
    private let takeUp = Mutex<(@Sendable (RoomNID) -> Void)?>(nil)

    /// - Parameter takeUp: takes up the events that wait in a room.
    func connect(_ takeUp: @escaping @Sendable (RoomNID) -> Void) { self.takeUp.withLock { $0 = takeUp } }

    /// Somebody is about to join; ``end(_:)`` has to follow.
    func begin(_ room: RoomID) { arrivals.withLock { $0[room, default: Arrival()].joins += 1 } }

    func end(_ room: RoomID) {
        arrivals.withLock { arrivals in
            arrivals[room]?.joins -= 1
            if arrivals[room]?.joins == 0 { arrivals[room] = nil }
        }
    }

    func isComing(_ room: RoomID) -> Bool { arrivals.withLock { $0[room] != nil } }

    /// Keeps events of a room that this server isn't in, for when it is. While an answer is being written it waits for that.
    func keep(_ events: [JSONView], of room: RoomID, from server: ServerNID) async -> Keeping {
        let told = events.map { Told(json: Array($0.raw), server: server) }
        let bytes = told.reduce(0) { $0 + $1.json.count }
        while true {
            let keeping: Keeping? = await withCheckedContinuation { continuation in
                let now: Keeping? = arrivals.withLock { arrivals in
                    guard let arrival = arrivals[room] else { return .notComing }
                    if arrival.writing > 0 {
                        arrivals[room]?.waiting.append(continuation)
                        return nil
                    }
                    guard arrival.told.count + told.count <= Self.mostEvents, arrival.bytes + bytes <= Self.mostBytes
                    else { return .full }
                    arrivals[room]?.told += told
                    arrivals[room]?.bytes += bytes
                    return .kept
                }
                if let now { continuation.resume(returning: now) }
            }
            if let keeping { return keeping }
        }
    }

    /// Writes a join that has been let happen, with what was told meanwhile; whoever tells more waits for it.
    func write(_ roomID: RoomID, _ body: ([Told]) async throws -> Room) async throws -> Room {
        let told = arrivals.withLock { arrivals in
            arrivals[roomID]?.writing += 1
            return arrivals[roomID]?.told ?? []
        }
        let outcome: Result<Room, any Error>
        do { outcome = .success(try await body(told)) } catch { outcome = .failure(error) }
        let waiting: [CheckedContinuation<Keeping?, Never>] = arrivals.withLock { arrivals in
            guard var arrival = arrivals[roomID] else { return [] }
            arrival.writing -= 1
            var waiting: [CheckedContinuation<Keeping?, Never>] = []
            if arrival.writing == 0 { swap(&waiting, &arrival.waiting) }
            if case .success = outcome {
                arrival.told = []
                arrival.bytes = 0
            }
            arrivals[roomID] = arrival
            return waiting
        }
        let room: Room
        switch outcome {
        case .success(let written): room = written
        case .failure(let error):
            for one in waiting { one.resume(returning: nil) }
            throw error
        }
        // They find the room as it is now.
        for one in waiting { one.resume(returning: .notComing) }
        if !told.isEmpty { takeUp.withLock { $0 }?(room.nid) }
        return room
    }
}
