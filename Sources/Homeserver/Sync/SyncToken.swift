import Database

/// Where a client's sync has come to: `s1-<epoch>-<position>-<run>-<ephemeral>`, and `-<position>` of the last message to
/// the device where more of those wait, and where more sticky events wait how far those are told. Clients treat it as opaque.
///
/// The epoch is that of the database: after a restore, tokens from before it mean nothing. The run is that of the process
/// that gave the token out; what is ephemeral (typing, presence) is counted per run and resent whole to tokens of a run that
/// has told the client nothing yet. Where several processes answer, the run has with it how far others have told: `<run>_<run>.<ephemeral>_…`.
/// (There are clients that put tokens into URLs as they are, so nothing in them may mean something there.)
struct SyncToken: Sendable, Equatable {
    var epoch: String
    var position: Int64
    var run: String
    var ephemeral: Int64
    /// How far other processes have told what is ephemeral, the last that answered first.
    private(set) var others: [Told] = []
    /// Up to where messages to the device are told; nil: as all else.
    var toDevice: Int64?
    /// How far sticky events are told; nil: as all else.
    var sticky: StickyDelivery.Place?

    /// Everything up to here that was sent to the device has been delivered.
    var toDevicePosition: Int64 { min(toDevice ?? position, position) }

    struct Told: Sendable, Equatable {
        var run: String
        var ephemeral: Int64
    }

    /// Processes that are remembered besides the one that answers.
    private static let mostOthers = 7

    /// How far a process has told the client what is ephemeral; nil if it has told nothing.
    func ephemeral(of run: String) -> Int64? {
        self.run == run ? ephemeral : others.first { $0.run == run }?.ephemeral
    }

    /// Takes up what other processes have told the client by the token that it came with.
    mutating func remember(_ since: SyncToken) {
        let all = [Told(run: since.run, ephemeral: since.ephemeral)] + since.others
        others = Array(all.filter { $0.run != run }.prefix(Self.mostOthers))
    }

    /// The run with what belongs to others.
    var runText: String { run + others.map { "_\($0.run).\($0.ephemeral)" }.joined() }

    /// Reads what ``runText`` has written.
    mutating func readRuns(_ text: some StringProtocol) -> Bool {
        let parts = text.split(separator: "_", omittingEmptySubsequences: false)
        run = String(parts[0])
        others = []
        for part in parts.dropFirst() {
            let pair = part.split(separator: ".", omittingEmptySubsequences: false)
            guard pair.count == 2, others.count < Self.mostOthers, let number = Int64(pair[1]), number >= 0 else {
                return false
            }
            others.append(Told(run: String(pair[0]), ephemeral: number))
        }
        return true
    }

    var text: String {
        "s1-\(epoch)-\(position)-\(runText)-\(ephemeral)" + (toDevice.map { "-\($0)" } ?? "")
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
        self.init(epoch: String(parts[1]), position: position, run: "", ephemeral: ephemeral)
        guard readRuns(parts[3]) else { return nil }
        self.sticky = sticky
        if parts.count == 6 {
            guard let toDevice = Int64(parts[5]), toDevice >= 0 else { return nil }
            self.toDevice = toDevice
        }
    }
}
