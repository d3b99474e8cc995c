import Foundation
import MatrixCore

@testable import HomeserverHTTP

/// The operations of an API of the specification, as `scripts/conformance-facts` wrote them down.
struct ConformanceTable: Sendable {
    let operations: [Operation]

    /// The Client-Server API.
    static let shared = ConformanceTable("client-server")
    /// The Server-Server API.
    static let federation = ConformanceTable("server-server")

    /// The root of the source tree.
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()

    private init(_ api: String) {
        let file = Self.root.appendingPathComponent(
            "Tests/HomeserverHTTPTests/Conformance/Facts/\(api).json")
        guard let data = try? Data(contentsOf: file), let table = try? JSONDocument(parsing: [UInt8](data)).root.json
        else { preconditionFailure("there is no table of facts at \(file.path)") }
        operations = (table["operations"]?.arrayValue ?? []).map(Operation.init)
    }

    struct Operation: Sendable {
        enum Token: String, Sendable { case none, optional, required, appservice, signed }

        let method: String
        let path: String
        let module: String
        let token: Token
        let isDeprecated: Bool
        /// The version that added it; nil if it is older than 1.1.
        let since: String?
        let pathParameters: [Parameter]
        let queryParameters: [Parameter]
        /// nil for operations that take no body.
        let request: Fact?
        /// Error codes that the description of the whole operation names.
        let codes: Set<String>
        let answers: [Int: Answer]
        fileprivate let segments: [Substring]

        var name: String { "\(method) \(path)" }
    }

    struct Parameter: Sendable {
        let name: String
        let fact: Fact
        let isRequired: Bool
    }

    struct Answer: Sendable {
        /// nil where the specification describes no body.
        let body: Fact?
        let codes: Set<String>
    }

    /// The operation at a path as it is on the wire; the one with the most literal segments, if there are several.
    func operation(_ method: String, _ path: Substring) -> Operation? {
        // Older clients say r0 where it is v3 today, and leave an empty state key out.
        let segments = path.split(separator: "/", omittingEmptySubsequences: false).map { $0 == "r0" ? "v3" : $0 }
        return operations.lazy.filter { $0.method == method && $0.matches(segments) }.max { $0.literals < $1.literals }
    }

    /// The operations that some endpoint answers.
    func implemented(by endpoints: [Endpoint]) -> [Operation] {
        operations.filter { isImplemented($0, by: endpoints) }
    }

    func isImplemented(_ operation: Operation, by endpoints: [Endpoint]) -> Bool {
        endpoints.contains { endpoint in
            endpoint.method.rawValue == operation.method
                && endpoint.patterns.contains { operation.isServed(by: $0) }
        }
    }

    /// What the endpoints answer that the specification doesn't have: methods and patterns.
    func patternsBeyond(_ endpoints: [Endpoint]) -> [String] {
        endpoints.flatMap { endpoint in
            endpoint.patterns.filter { pattern in
                !operations.contains { $0.method == endpoint.method.rawValue && $0.isServed(by: pattern) }
            }.map { "\(endpoint.method.rawValue) \($0)" }
        }
    }
}

extension ConformanceTable.Operation {
    fileprivate init(_ json: JSON) {
        func text(_ key: String) -> String { json[key]?.stringValue ?? "" }
        func codes(_ json: JSON?) -> Set<String> { Set(json?.arrayValue?.compactMap(\.stringValue) ?? []) }
        func parameters(_ key: String) -> [ConformanceTable.Parameter] {
            json[key]?.objectValue?.map {
                ConformanceTable.Parameter(
                    name: $0.key, fact: Fact($0.value["type"] ?? "any"), isRequired: $0.value["required"] == true)
            } ?? []
        }
        method = text("method")
        path = text("path")
        module = text("module")
        token = Token(rawValue: text("token")) ?? .none
        isDeprecated = json["deprecated"] == true
        since = json["since"]?.stringValue
        pathParameters = parameters("parameters")
        queryParameters = parameters("query")
        request = json["request"].map(Fact.init)
        self.codes = codes(json["codes"])
        answers = (json["answers"]?.objectValue ?? [:]).reduce(into: [:]) { answers, member in
            answers[Int(member.key) ?? 0] = ConformanceTable.Answer(
                body: member.value["body"].map(Fact.init), codes: codes(member.value["codes"]))
        }
        segments = path.split(separator: "/", omittingEmptySubsequences: false)
    }

    /// The same operation at another path.
    init(_ operation: Self, path: String) {
        method = operation.method
        self.path = path
        module = operation.module
        token = operation.token
        isDeprecated = operation.isDeprecated
        since = operation.since
        pathParameters = operation.pathParameters
        queryParameters = operation.queryParameters
        request = operation.request
        codes = operation.codes
        answers = operation.answers
        segments = path.split(separator: "/", omittingEmptySubsequences: false)
    }

    fileprivate var literals: Int { segments.count { !$0.hasPrefix("{") } }

    fileprivate func matches(_ path: [Substring]) -> Bool {
        // The last parameter may be left out where it may be empty.
        let isShorter = path.count == segments.count - 1 && segments.last == "{stateKey}"
        guard path.count == segments.count || isShorter else { return false }
        return zip(segments, path).allSatisfy { $0.hasPrefix("{") || $0 == $1 }
    }

    fileprivate func isServed(by pattern: PathPattern) -> Bool {
        let own = segments.dropFirst()
        guard pattern.segments.count == own.count else { return false }
        return zip(own, pattern.segments).allSatisfy { text, segment in
            switch segment {
            case .literal(let literal): text == literal
            case .parameter: text.hasPrefix("{")
            case .choice(_, let choices): text.hasPrefix("{") || choices.contains(String(text))
            }
        }
    }

    /// The codes that an answer of the status may have.
    func codes(for status: Int) -> Set<String> {
        (ErrorCodes.common[status] ?? []).union(codes).union(answers[status]?.codes ?? [])
    }

    /// Where an answer departs from the specification.
    func violations(status: Int, body: [UInt8], isFile: Bool) -> [Fact.Violation] {
        let listed = answers[status]
        guard listed != nil || ErrorCodes.common[status] != nil else {
            return [.init(path: "status", problem: "\(status) is not among \(answers.keys.sorted())")]
        }
        if case .bytes? = listed?.body { return [] }
        guard !isFile else { return [.init(path: "", problem: "must be JSON, is a file")] }
        guard let json = try? JSONDocument(parsing: body).root.json else {
            return [.init(path: "", problem: "is no JSON")]
        }
        // Whatever an operation lists for a status, it may also refuse as any operation does: a missing token is a
        // standard error with status 401, where 401 else asks for interactive authentication.
        if status >= 400, json["flows"] == nil { return Fact.error.violations(of: json) }
        return listed?.body?.violations(of: json) ?? []
    }
}
