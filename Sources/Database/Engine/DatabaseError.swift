/// What can go wrong between the server and its database.
public enum DatabaseError: Error, Sendable, CustomStringConvertible {
    /// An expectation of the write did not hold: somebody else was faster. Read again and decide anew.
    case conflict(String)
    /// A UNIQUE, NOT NULL, CHECK or FOREIGN KEY constraint would be violated.
    case constraint(String)
    /// The engine took longer over a read than a read may take.
    case interrupted
    /// The database server can't be reached, or can't do it now. Whether a write took effect may be unknown; asked again later
    /// it may succeed.
    case unavailable(String)
    /// The database is closed or is being closed.
    case closed
    /// The stored data contradict themselves.
    case corrupt(String)
    /// The file or server can't be used at all; the text says why, and what to do.
    case unusable(String)
    /// The engine reported a failure.
    case engine(code: Int32, message: String)

    public var description: String {
        switch self {
        case .conflict(let what): "The data changed meanwhile: \(what)."
        case .constraint(let what): "The data would contradict themselves: \(what)."
        case .interrupted: "The database took too long over a read."
        case .unavailable(let why): "The database is not available at the moment: \(why)."
        case .closed: "The database is closed."
        case .corrupt(let what): "The database contradicts itself: \(what). Run `roost db check`, or restore a backup."
        case .unusable(let what): what
        case .engine(let code, let message): "The database reports error \(code): \(message)."
        }
    }
}
