import Database

/// Where a client's sync has come to: `s1-<epoch>-<position>-<run>-<ephemeral>`, and `-<position>` of the last message to
/// the device where more of those wait, and where more sticky events wait how far those are told. Clients treat it as opaque.
///
/// The epoch is that of the database: after a restore, tokens from before it mean nothing. The run is that of the process
/// that gave the token out; what is ephemeral (typing) is counted per run and resent whole to tokens of another one.
struct SyncToken: Sendable, Equatable {
    var epoch: String
    var position: Int64
    var run: String
    var ephemeral: Int64
    /// Up to where messages to the device are told; nil: as all else.
    var toDevice: Int64?
    /// How far sticky events are told; nil: as all else.
    var sticky: StickyDelivery.Place?

    /// Everything up to here that was sent to the device has been delivered.
    var toDevicePosition: Int64 { min(toDevice ?? position, position) }

    var text: String {
        "s1-\(epoch)-\(position)-\(run)-\(ephemeral)" + (toDevice.map { "-\($0)" } ?? "")
            + (sticky.map { "-\($0.text)" } ?? "")
    }

    init(epoch: String, position: Int64, run: String, ephemeral: Int64) {
        self.epoch = epoch
        self.position = position
        self.run = run
        self.ephemeral = ephemeral
    }

    init?(_ text: String) {
        var parts = text.split(separator: "-", omittingEmptySubsequences: false)
        let sticky = parts.last.flatMap { StickyDelivery.Place($0) }
        if sticky != nil { parts.removeLast() }
        guard (5...6).contains(parts.count), parts[0] == "s1", let position = Int64(parts[2]), position >= 0,
            let ephemeral = Int64(parts[4]), ephemeral >= 0
        else { return nil }
        self.init(epoch: String(parts[1]), position: position, run: String(parts[3]), ephemeral: ephemeral)
        self.sticky = sticky
        if parts.count == 6 {
            guard let toDevice = Int64(parts[5]), toDevice >= 0 else { return nil }
            self.toDevice = toDevice
        }
    }
}
