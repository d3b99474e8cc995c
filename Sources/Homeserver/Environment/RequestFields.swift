import MatrixCore

/// Reading members of a client's JSON with the errors that the specification asks for.
extension JSONView {
    /// - Throws: `M_BAD_JSON` if the member is there with another type; null counts as absent.
    private func optional<T>(_ key: String, _ kind: String, _ read: (JSONView) -> T?) throws -> T? {
        guard let value = self[key], !value.isNull else { return nil }
        guard let read = read(value) else { throw MatrixError.badJSON("“\(key)” must be \(kind).") }
        return read
    }

    public func optionalString(_ key: String) throws -> String? { try optional(key, "a string", \.string) }
    public func optionalInteger(_ key: String) throws -> Int64? { try optional(key, "an integer", \.integer) }
    public func optionalBool(_ key: String) throws -> Bool? { try optional(key, "true or false", \.bool) }
    public func optionalObject(_ key: String) throws -> JSONView? {
        try optional(key, "an object") { $0.isObject ? $0 : nil }
    }
    public func optionalArray(_ key: String) throws -> [JSONView]? {
        try optional(key, "an array") { $0.isArray ? Array($0.elements) : nil }
    }

    public func optionalStrings(_ key: String) throws -> [String]? {
        try optional(key, "an array of strings") { value in
            guard value.isArray else { return nil }
            let strings = value.elements.compactMap(\.string)
            return strings.count == value.count ? strings : nil
        }
    }

    /// - Throws: `M_MISSING_PARAM` if the member is not there, `M_BAD_JSON` if it has another type.
    public func requiredString(_ key: String) throws -> String {
        guard let value = try optionalString(key) else { throw MatrixError.missingParam(key) }
        return value
    }

    public func requiredBool(_ key: String) throws -> Bool {
        guard let value = try optionalBool(key) else { throw MatrixError.missingParam(key) }
        return value
    }
}
