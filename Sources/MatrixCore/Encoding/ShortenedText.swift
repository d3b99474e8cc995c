extension String {
    /// The first of its Unicode scalars: what a stranger wrote, within so many times four bytes. A single character may have any number
    /// of combining marks.
    public func shortened(to scalars: Int) -> String {
        // UTF-8 has as many bytes as scalars at least.
        if utf8.count <= scalars { return self }
        return String(String.UnicodeScalarView(unicodeScalars.prefix(scalars)))
    }
}
