extension Int64 {
    /// The milliseconds from a time that somebody claims to this one; 0 if that is still to come. In room versions 1 to 5 a claim may be
    /// any 64-bit number, so the result is kept within canonical JSON.
    public func elapsed(since claimed: Int64) -> Int64 {
        let (difference, overflows) = subtractingReportingOverflow(claimed)
        if overflows { return claimed < 0 ? 1 << 53 - 1 : 0 }
        return Swift.min(Swift.max(difference, 0), 1 << 53 - 1)
    }
}
