import Database
import MatrixCore
import Synchronization

/// Which devices users of this server have, remembered for as long as nobody else writes into the database (``Engine/solitude``).
///
/// That a device is there is known until one of its user's ends. What isn't known is looked up: a device that has just come counts at
/// once, and nothing needs to be told of it.
final class KnownDevices: Sendable {
    /// The devices of a user.
    struct Devices {
        /// In order.
        let ids: [String]
        let names: Set<ByteString>

        init(_ ids: [String]) {
            self.ids = ids
            names = Set(ids.map { ByteString($0) })
        }
    }

    private struct Entry {
        let devices: Devices
        let solitude: Int
    }

    private struct Known {
        /// By number of devices.
        var entries = BoundedCache<UserNID, Entry>(capacity: 100_000)
        /// The position of the last change of anybody's devices.
        var lastChange: Int64 = 0
    }

    private let database: Database
    /// Nothing is awaited while the lock is held.
    private let known = Mutex(Known())

    init(database: Database) { self.database = database }

    /// Takes note of what a commit has changed.
    func note(_ topics: [Topic], at position: Int64) {
        for topic in topics {
            switch topic {
            case .deviceList(let user):
                known.withLock { known in
                    known.entries.remove(user)
                    known.lastChange = max(known.lastChange, position)
                }
            case .everything:
                known.withLock { known in
                    known.entries.removeAll()
                    known.lastChange = max(known.lastChange, position)
                }
            default: break
            }
        }
    }

    /// - Parameter wanted: the devices that are asked for, nil meaning all that there are. Of others than these not all may be told.
    func devices(of wanted: [UserNID: Set<ByteString>?]) async throws -> [UserNID: Devices] {
        let (solitude, asOf) = (database.engine.solitude, database.committedPosition)
        var found: [UserNID: Devices] = [:]
        if let solitude {
            let entries = known.withLock { known in
                wanted.compactMap { user, devices in devices == nil ? nil : known.entries[user].map { (user, $0) } }
            }
            for (user, entry) in entries where entry.solitude == solitude {
                if let devices = wanted[user] ?? nil, devices.isSubset(of: entry.devices.names) {
                    found[user] = entry.devices
                }
            }
        }
        let missing = wanted.keys.filter { found[$0] == nil }.sorted()
        if missing.isEmpty { return found }
        let read = try await database.deviceIDs(of: missing).mapValues { Devices($0) }
        found.merge(read) { $1 }
        if let solitude {
            known.withLock { known in
                // Whoever has lost a device since the read began may still have it there.
                guard known.lastChange <= asOf else { return }
                for (user, devices) in read {
                    known.entries.insert(
                        Entry(devices: devices, solitude: solitude), for: user, size: devices.ids.count + 1)
                }
            }
        }
        return found
    }
}
