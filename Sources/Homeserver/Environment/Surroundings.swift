/// All that makes two runs of the server differ: it comes in from outside, so that tests and simulations decide it.
public struct Surroundings: Sendable {
    /// The time of day in milliseconds since 1970, for timestamps that others see.
    public var now: @Sendable () -> Int64
    /// So many unpredictable bytes.
    public var randomBytes: @Sendable (Int) -> [UInt8]
    /// Calls the closure after so many milliseconds, unless what is returned is called before.
    public var after: @Sendable (_ milliseconds: Int64, _ run: @escaping @Sendable () -> Void) -> Cancel

    /// Takes back what was to happen later.
    public typealias Cancel = @Sendable () -> Void

    public init(
        now: @escaping @Sendable () -> Int64, randomBytes: @escaping @Sendable (Int) -> [UInt8],
        after: @escaping @Sendable (Int64, @escaping @Sendable () -> Void) -> Cancel
    ) {
        self.now = now
        self.randomBytes = randomBytes
        self.after = after
    }

    /// The machine's clock and generator.
    public static let real = Surroundings(
        now: { SystemClock.millisecondsSince1970() },
        randomBytes: { count in
            // Each number is asked of the kernel: eight bytes at a time.
            var generator = SystemRandomNumberGenerator()
            let words = (0..<(count + 7) / 8).map { _ in generator.next() as UInt64 }
            return words.withUnsafeBytes { Array($0.prefix(count)) }
        },
        after: { [timers = Timers()] in timers.after($0, $1) })
}

extension Surroundings {
    /// Waits for so many milliseconds, or until the task is cancelled.
    func sleep(_ milliseconds: Int64) async {
        let (woken, wake) = AsyncStream<Void>.makeStream()
        let cancel = after(milliseconds) { wake.finish() }
        // Of a cancelled task the stream ends, too.
        for await _ in woken {}
        cancel()
    }

    /// Random text of letters and digits that need no escaping anywhere.
    func randomText(_ count: Int, from alphabet: StaticString = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
        -> String
    {
        let letters = UnsafeBufferPointer(start: alphabet.utf8Start, count: alphabet.utf8CodeUnitCount)
        var text: [UInt8] = []
        // Bytes beyond the last whole multiple of the alphabet are thrown away, so that all letters are equally likely.
        let fair = 256 - 256 % letters.count
        while text.count < count {
            for byte in randomBytes(count) where Int(byte) < fair && text.count < count {
                text.append(letters[Int(byte) % letters.count])
            }
        }
        return String(decoding: text, as: UTF8.self)
    }
}
