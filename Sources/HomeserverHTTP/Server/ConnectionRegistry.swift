import Homeserver
import NIOCore
import Synchronization

/// All open connections, to be told of the end.
///
/// The mutex protects the table; nothing is awaited while it is held.
final class ConnectionRegistry: Sendable {
    private struct State {
        var channels: [ObjectIdentifier: any Channel] = [:]
        /// How many connections each address has; see `ClientAddress.networkKey`.
        var perAddress: [IPAddress: Int] = [:]
        var isEmptied: [CheckedContinuation<Void, Never>] = []
    }

    private let state = Mutex(State())

    /// Keeps track of a connection until it closes.
    ///
    /// - Parameter address: whom to count it for; nil when it counts for nobody, as those of a proxy.
    /// - Returns: false when there are too many already, altogether or of that address.
    func add(_ channel: any Channel, from address: IPAddress?, within limits: ServerLimits) -> Bool {
        let id = ObjectIdentifier(channel)
        let isAdded = state.withLock { state in
            guard state.channels.count < limits.connections else { return false }
            if let address {
                guard state.perAddress[address, default: 0] < limits.connectionsPerAddress else { return false }
                state.perAddress[address, default: 0] += 1
            }
            state.channels[id] = channel
            return true
        }
        if isAdded {
            channel.closeFuture.whenComplete { _ in self.remove(id, address) }
        }
        return isAdded
    }

    private func remove(_ id: ObjectIdentifier, _ address: IPAddress?) {
        let waiters = state.withLock { state in
            state.channels[id] = nil
            if let address, let count = state.perAddress[address] {
                state.perAddress[address] = count > 1 ? count - 1 : nil
            }
            guard state.channels.isEmpty else { return [CheckedContinuation<Void, Never>]() }
            defer { state.isEmptied = [] }
            return state.isEmptied
        }
        for waiter in waiters { waiter.resume() }
    }

    private var channels: [any Channel] { state.withLock { Array($0.channels.values) } }

    /// Tells every connection to close when it has nothing to do.
    func quiesce() {
        for channel in channels {
            channel.pipeline.fireUserInboundEventTriggered(ChannelShouldQuiesceEvent())
        }
    }

    func closeAll() {
        for channel in channels { channel.close(promise: nil) }
    }

    func waitUntilEmpty() async {
        await withCheckedContinuation { continuation in
            let isEmpty = state.withLock { state in
                if !state.channels.isEmpty { state.isEmptied.append(continuation) }
                return state.channels.isEmpty
            }
            if isEmpty { continuation.resume() }
        }
    }
}
