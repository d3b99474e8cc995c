import Crypto
import Synchronization

/// A file on its way to the blob store: bytes go to the disk as they arrive, and are counted and hashed on the way.
final class ArrivingFile: Sendable {
    private struct State {
        var hash = SHA256()
        var size = 0
    }

    private let store: BlobStore
    private let file: BlobStore.Incoming
    private let mostBytes: Int
    /// The lock protects the count and the hash; the file itself is written while it is held, so that bytes keep their order.
    private let state = Mutex(State())

    /// - Parameter name: one that nobody else gives a file.
    init(in store: BlobStore, named name: String, mostBytes: Int) throws {
        self.store = store
        self.mostBytes = mostBytes
        file = try store.begin(name)
    }

    /// - Throws: `M_TOO_LARGE` as soon as it is more than allowed.
    func write(_ bytes: UnsafeRawBufferPointer) throws {
        try state.withLock { state in
            state.size += bytes.count
            guard state.size <= mostBytes else {
                throw MatrixError.tooLarge("Files of up to \(mostBytes) bytes are taken here.")
            }
            state.hash.update(bufferPointer: bytes)
            try file.write(bytes)
        }
    }

    /// Gives the file its place. Durable when this returns.
    func keep(at now: Int64, on disk: BlockingPool) async throws -> (hash: [UInt8], size: Int64) {
        let (hash, size) = state.withLock { (Array($0.hash.finalize()), Int64($0.size)) }
        try await disk.run { [store, file] in try store.keep(file, as: hash, at: now) }
        return (hash, size)
    }

    func abandon() { file.abandon() }
}
