extension Migration {
    /// What came with pools of one-time keys: those of one upload are a row that counts how many of them were handed out.
    static let seventh = Migration(
        version: 7, oldestBinary: 7,
        sql: [
            // A few keys whose IDs have one length, and they themselves one: `names` has the ID and the hash (16 bytes) of each,
            // `keys` the JSON. The first `taken` of `size` were handed out. Those of rows that are used up are put together with the
            // last ones before, as a row at position 0 without algorithm, IDs and JSON (``OneTimeKeyPool``).
            """
            CREATE TABLE one_time_key_pools (
                user_nid NUMBER NOT NULL, device_id TEXT NOT NULL, algorithm TEXT NOT NULL, position NUMBER NOT NULL,
                part NUMBER NOT NULL, size NUMBER NOT NULL, taken NUMBER NOT NULL, names BYTES NOT NULL,
                keys BYTES NOT NULL, PRIMARY KEY (user_nid, device_id, algorithm, position, part)) CLUSTERED
            """,
            """
            INSERT INTO one_time_key_pools
            SELECT user_nid, device_id, algorithm, position, row_number() OVER (
                PARTITION BY user_nid, device_id, algorithm, position ORDER BY key_id), 1, 0,
                CAST(CAST(key_id AS BYTES) || key_hash AS BYTES), json
            FROM one_time_keys
            """,
            """
            INSERT INTO one_time_key_pools
            SELECT user_nid, device_id, CAST('' AS TEXT), position, row_number() OVER (
                PARTITION BY user_nid, device_id, position ORDER BY key_hash), 1, 1, key_hash, CAST('' AS BYTES)
            FROM claimed_keys
            """,
            "DROP TABLE one_time_keys",
            "DROP TABLE claimed_keys",
        ],
        // What a claim changes of a row finds room on the same page.
        postgresql: ["ALTER TABLE one_time_key_pools SET (fillfactor = 70)"])
}
