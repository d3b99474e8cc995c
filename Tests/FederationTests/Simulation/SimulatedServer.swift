import Homeserver
import MatrixCore
import RoostTestSupport

/// A server of a simulation, through all that happens to it. Used on the simulation's thread alone.
final class SimulatedServer: @unchecked Sendable {
    let index: Int
    let name: ServerName
    let directory = TemporaryDirectory()
    /// Milliseconds by which its clock is wrong.
    let skew: Int64
    /// nil while it is down.
    var server: TestServer?
    var engine: CrashingEngine?
    /// It has come to the write at which it was to crash.
    var hasCrashed = false
    /// Counts its lives: what was begun in an earlier one doesn't count any more.
    var life = 0
    var people: [Person] = []
    /// The newest backup, with the time at which it was made.
    var backup: (path: String, at: Int64)?
    /// What it did between these times it doesn't know any more.
    var forgotten: [ClosedRange<Int64>] = []

    init(index: Int, skew: Int64) {
        self.index = index
        self.skew = skew
        name = ServerName(unchecked: "hs\(index + 1).example")
    }

    /// Whether it may have forgotten something since a time.
    func mayForget(since time: Int64) -> Bool { forgotten.contains { $0.upperBound >= time } }

    /// Whether it may have forgotten what it did at a time.
    func mayHaveForgotten(_ time: Int64) -> Bool { forgotten.contains { $0.contains(time) } }
}

/// Somebody with an account and a device that is always there. Used on the simulation's thread alone.
final class Person: @unchecked Sendable {
    let home: Int
    let requester: Requester
    var userID: UserID { requester.userID }
    /// Where the device's sync has come to.
    var token: String?
    /// How often each message to the device has come.
    var received: [String: Int] = [:]

    init(home: Int, requester: Requester) {
        self.home = home
        self.requester = requester
    }
}
