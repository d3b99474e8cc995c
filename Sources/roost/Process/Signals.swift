import Dispatch
import Glibc
import Synchronization

/// The signals that a server obeys.
enum Signals {
    enum Order: Sendable {
        /// SIGTERM or SIGINT, the first time.
        case stop
        /// SIGHUP.
        case reload
    }

    /// The orders as they come. A second SIGTERM or SIGINT ends the process at once.
    ///
    /// Called once: from then on the signals don't have their usual effect.
    static func orders() -> AsyncStream<Order> {
        AsyncStream { continuation in
            let isStopping = Atomic(false)
            let sources = [SIGTERM, SIGINT, SIGHUP].map { number in
                signal(number, SIG_IGN)
                let source = DispatchSource.makeSignalSource(signal: number)
                source.setEventHandler {
                    if number == SIGHUP {
                        continuation.yield(.reload)
                    } else if isStopping.exchange(true, ordering: .relaxed) {
                        _exit(128 + number)
                    } else {
                        continuation.yield(.stop)
                    }
                }
                source.resume()
                return UncheckedSource(source: source)
            }
            continuation.onTermination = { _ in _ = sources }
        }
    }

    /// Keeps a source alive; it is never touched again.
    private struct UncheckedSource: @unchecked Sendable {
        let source: any DispatchSourceSignal
    }
}
