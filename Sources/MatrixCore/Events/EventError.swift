/// Why bytes are not an event of a room version: the event is dropped
/// (Server-Server API, Checks performed on receipt of a PDU, step 1).
public enum EventError: Error, Sendable, Hashable, CustomStringConvertible {
    case invalidJSON(JSONError)
    case notCanonical(CanonicalJSONError)
    case notAnObject
    case missing(field: String)
    /// The field has another type than the event format asks for.
    case wrongType(field: String)
    /// The field is no identifier of the kind and format that the room version asks for.
    case invalidIdentifier(field: String)
    /// More than 255 bytes (Client-Server API, Size limits).
    case fieldTooLong(field: String)
    /// More than 65,536 bytes of canonical JSON (Client-Server API, Size limits).
    case tooLarge(bytes: Int)
    /// More entries than the event format allows.
    case tooMany(field: String, limit: Int)

    public var description: String {
        switch self {
        case .invalidJSON(let error): error.description
        case .notCanonical(let error): error.description
        case .notAnObject: "an event is a JSON object"
        case .missing(let field): "the event has no \(field)"
        case .wrongType(let field): "the event's \(field) has the wrong type"
        case .invalidIdentifier(let field): "the event's \(field) is not a valid identifier for its room version"
        case .fieldTooLong(let field): "the event's \(field) is longer than 255 bytes"
        case .tooLarge(let bytes): "the event is \(bytes) bytes long, more than the 65,536 allowed"
        case .tooMany(let field, let limit): "the event has more than \(limit) \(field)"
        }
    }
}
