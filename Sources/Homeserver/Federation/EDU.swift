import MatrixCore

/// What is told to other servers and not kept by them (Server-Server API, "EDUs").
struct EDU: Sendable {
    let type: String
    let content: JSON
    /// One that is still waiting under the same key is told no more: this one takes its place.
    let key: String?
    /// Of the change that it tells, where that must be told however long it takes; nil for what passes.
    let position: Int64?

    init(_ type: String, _ content: JSON, replacing key: String? = nil, position: Int64? = nil) {
        self.position = position
        self.type = type
        self.content = content
        self.key = key.map { "\(type)\0\($0)" }
    }

    var json: JSON { ["edu_type": .string(type), "content": content] }
}
