extension ThirdSchema {
    static let rooms = [
        // Which node is to write into the room next, and until when the others wait for it.
        "ALTER TABLE rooms ADD COLUMN turn TEXT",
        "ALTER TABLE rooms ADD COLUMN turn_until NUMBER NOT NULL DEFAULT 0",
    ]
}
