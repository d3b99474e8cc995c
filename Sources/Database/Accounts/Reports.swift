import MatrixCore

/// What somebody reported to those who run the server (Client-Server API, module "Reporting Content").
public struct Report: Sendable {
    public let id: String
    public let reporter: UserNID
    public let createdTS: Int64
    /// The room, where a room or an event was reported.
    public let room: RoomNID?
    public let event: EventID?
    public let user: UserID?
    public let reason: String?
    /// How bad it is, from −100 (worst) to 0, as older clients say.
    public let score: Int64?

    public init(
        id: String, reporter: UserNID, createdTS: Int64, room: RoomNID? = nil, event: EventID? = nil,
        user: UserID? = nil, reason: String?, score: Int64? = nil
    ) {
        self.id = id
        self.reporter = reporter
        self.createdTS = createdTS
        self.room = room
        self.event = event
        self.user = user
        self.reason = reason
        self.score = score
    }
}

extension Database {
    private static let all = Statement(
        """
        SELECT report_id, reporter_nid, created_ts, room_nid, event_id, user_id, reason, score FROM reports
        ORDER BY created_ts DESC, report_id LIMIT $1
        """)

    /// The newest reports first.
    public func reports(limit: Int) async throws -> [Report] {
        try await read { reader in
            try await reader.query(Self.all, [.integer(Int64(limit))]) { row in
                Report(
                    id: row.text(0), reporter: UserNID(row.integer(1)), createdTS: row.integer(2),
                    room: row.optionalInteger(3).map { RoomNID($0) },
                    event: row.optionalText(4).map { EventID(unchecked: $0) },
                    user: row.optionalText(5).map { UserID(unchecked: $0) }, reason: row.optionalText(6),
                    score: row.optionalInteger(7))
            }
        }
    }
}

extension Write {
    private static let insert = Statement(
        """
        INSERT INTO reports (report_id, reporter_nid, created_ts, room_nid, event_id, user_id, reason, score)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        """)

    public mutating func insert(_ report: Report) {
        run(
            Self.insert, .text(report.id), report.reporter.value, .integer(report.createdTS),
            report.room?.value ?? .null, report.event.map { .identifier($0.string) } ?? .null,
            report.user.map { .identifier($0.string) } ?? .null, .optional(report.reason), .optional(report.score))
    }
}
