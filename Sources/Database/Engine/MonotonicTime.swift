#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// The clock of the machine that never goes back. It bounds how long the engine works; nothing that is stored or
/// answered depends on it.
enum MonotonicTime {
    static func nanoseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}
