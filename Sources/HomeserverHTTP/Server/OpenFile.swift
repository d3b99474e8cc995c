import Glibc
import NIOCore
import NIOPosix

/// A file that is sent; its reads are done by the threads for blocking work.
final class OpenFile: Sendable {
    private let descriptor: CInt

    /// - Throws: `IOError` when there is no such file or it can't be read.
    init(path: String) async throws {
        descriptor = try await NIOThreadPool.singleton.runIfActive {
            let descriptor = open(path, O_RDONLY | O_CLOEXEC)
            guard descriptor >= 0 else { throw IOError(errnoCode: errno, reason: "open \(path)") }
            return descriptor
        }
    }

    deinit { close(descriptor) }

    /// Reads at most `count` bytes.
    ///
    /// - Throws: `IOError`, also at the end of the file: it is shorter than it was announced.
    func read(at offset: Int64, count: Int) async throws -> ByteBuffer {
        let descriptor = descriptor
        return try await NIOThreadPool.singleton.runIfActive {
            var buffer = ByteBufferAllocator().buffer(capacity: count)
            try buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: count) { space in
                let read = pread(descriptor, space.baseAddress, count, off_t(offset))
                guard read > 0 else { throw IOError(errnoCode: read < 0 ? errno : EIO, reason: "read a file to send") }
                return read
            }
            return buffer
        }
    }
}
