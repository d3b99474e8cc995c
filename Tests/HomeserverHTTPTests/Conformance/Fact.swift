import MatrixCore

/// What the specification says of a JSON value: its type, or its members and theirs.
indirect enum Fact: Sendable {
    case any, string, integer, number, boolean, null
    /// A string that names something of Matrix, such as `mx-room-id`.
    case identifier(String)
    case enumeration([JSON])
    case array(Fact)
    case object(Object)
    case oneOf([Fact])
    /// A body that isn't JSON.
    case bytes
    /// The standard error response.
    case error

    struct Object: Sendable {
        var fields: [(name: String, fact: Fact)] = []
        var required: Set<String> = []
        /// What holds for members that aren't among the fields.
        var values: Fact?
        /// The same, for members whose names begin with a text.
        var keys: [(prefix: String, fact: Fact)] = []
    }

    init(_ json: JSON) {
        if let text = json.stringValue {
            switch text {
            case "string": self = .string
            case "integer": self = .integer
            case "number": self = .number
            case "boolean": self = .boolean
            case "null": self = .null
            case "object": self = .object(Object())
            case "array": self = .array(.any)
            case "bytes": self = .bytes
            case "error": self = .error
            case "any": self = .any
            default:
                precondition(text.hasPrefix("string mx-"), "the table of facts has an unknown type “\(text)”")
                self = .identifier(String(text.dropFirst("string ".count)))
            }
        } else if let values = json["enum"]?.arrayValue {
            self = .enumeration(values)
        } else if let choices = json["oneOf"]?.arrayValue {
            self = .oneOf(choices.map(Fact.init))
        } else if let items = json["items"] {
            self = .array(Fact(items))
        } else {
            var object = Object()
            object.fields = json["fields"]?.objectValue?.map { ($0.key, Fact($0.value)) } ?? []
            object.required = Set(json["required"]?.arrayValue?.compactMap(\.stringValue) ?? [])
            object.values = json["values"].map(Fact.init)
            object.keys =
                json["keys"]?.objectValue?.map { pattern, fact in
                    // The patterns of the specification are all of the form “begins with this sigil”.
                    (String(pattern.drop { $0 == "^" || $0 == "\\" }), Fact(fact))
                } ?? []
            self = .object(object)
        }
    }
}

extension Fact {
    /// Where a value departs from the fact: a path to the member, and what is wrong there.
    struct Violation: Sendable, CustomStringConvertible {
        let path: String
        let problem: String
        var description: String { "\(path.isEmpty ? "the body" : path): \(problem)" }
    }

    func violations(of value: JSON, at path: String = "") -> [Violation] {
        func wrong(_ wanted: String) -> [Violation] {
            [Violation(path: path, problem: "must be \(wanted), is \(Self.excerpt(value))")]
        }
        switch self {
        case .any, .bytes: return []
        case .string: return value.stringValue == nil ? wrong("a string") : []
        case .integer: return value.integerValue == nil ? wrong("an integer") : []
        case .number: return value.doubleValue == nil ? wrong("a number") : []
        case .boolean: return value.boolValue == nil ? wrong("true or false") : []
        case .null: return value.isNull ? [] : wrong("null")
        case .identifier(let kind):
            guard let text = value.stringValue else { return wrong("a string") }
            return Self.isIdentifier(text, kind) ? [] : wrong(kind)
        case .enumeration(let values):
            return values.contains(value) ? [] : wrong("one of \(Self.excerpt(.array(values)))")
        case .array(let item):
            guard let items = value.arrayValue else { return wrong("an array") }
            return items.enumerated().flatMap { item.violations(of: $1, at: "\(path)[\($0)]") }
        case .oneOf(let choices):
            return choices.contains { $0.violations(of: value).isEmpty } ? [] : wrong("one of several types")
        case .object(let facts):
            guard let members = value.objectValue else { return wrong("an object") }
            return facts.violations(of: members, at: path)
        case .error:
            guard let code = value["errcode"]?.stringValue else { return wrong("a standard error") }
            guard value["error"]?.stringValue != nil else { return wrong("an error with a sentence") }
            return ErrorCodes.all.contains(code) ? [] : wrong("an error with a known code")
        }
    }

    private static func isIdentifier(_ text: String, _ kind: String) -> Bool {
        switch kind {
        case "mx-user-id": UserID(text) != nil
        case "mx-room-id": RoomID(text) != nil
        case "mx-room-alias": RoomAlias(text) != nil
        case "mx-event-id": EventID(text) != nil
        case "mx-mxc-uri": text.hasPrefix("mxc://")
        default: !text.isEmpty
        }
    }

    private static func excerpt(_ value: JSON) -> String {
        let text = String(decoding: value.encoded(), as: UTF8.self)
        return text.count > 200 ? "\(text.prefix(200))…" : text
    }
}

extension Fact.Object {
    func violations(of members: JSONObject, at path: String) -> [Fact.Violation] {
        let missing = required.sorted().filter { members[$0] == nil }
        var found = missing.map { Fact.Violation(path: "\(path).\($0)", problem: "is missing") }
        for (name, value) in members {
            let fact =
                fields.first { $0.name == name }?.fact ?? keys.first { name.hasPrefix($0.prefix) }?.fact ?? values
            found += fact?.violations(of: value, at: "\(path).\(name)") ?? []
        }
        return found
    }
}

/// The codes that an error may have.
enum ErrorCodes {
    /// Client-Server API, "Standard error response": what any operation may answer with, by status.
    static let common: [Int: Set<String>] = [
        400: ["M_BAD_JSON", "M_NOT_JSON", "M_INVALID_PARAM", "M_MISSING_PARAM", "M_UNKNOWN", "M_UNRECOGNIZED"],
        401: ["M_MISSING_TOKEN", "M_UNKNOWN_TOKEN", "M_USER_LOCKED"],
        403: ["M_FORBIDDEN", "M_GUEST_ACCESS_FORBIDDEN", "M_USER_SUSPENDED", "M_RESOURCE_LIMIT_EXCEEDED"],
        404: ["M_NOT_FOUND", "M_UNRECOGNIZED"],
        405: ["M_UNRECOGNIZED"],
        413: ["M_TOO_LARGE"],
        429: ["M_LIMIT_EXCEEDED"],
        500: ["M_UNKNOWN"],
    ]

    /// Codes that the specification explains in sections which belong to no single operation.
    private static let elsewhere: Set<String> = [
        "M_UNAUTHORIZED", "M_BAD_STATE", "M_CAPTCHA_NEEDED", "M_CAPTCHA_INVALID", "M_INCOMPATIBLE_ROOM_VERSION",
        "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM", "M_UNABLE_TO_AUTHORISE_JOIN", "M_UNABLE_TO_GRANT_JOIN", "M_EXCLUSIVE",
        "M_WEAK_PASSWORD", "M_USER_LIMIT_EXCEEDED", "M_UNKNOWN_DEVICE", "M_UNKNOWN_POS",
    ]

    static let all = ConformanceTable.shared.operations.reduce(into: elsewhere) { codes, operation in
        codes.formUnion(operation.codes)
        for answer in operation.answers.values { codes.formUnion(answer.codes) }
    }.union(common.values.joined())
}
