/// Checks the signatures of many events at once, on all cores
/// (Server-Server API, Validating hashes and signatures on received events).
///
/// One Ed25519 verification takes longer than everything else that is done with an event on receipt.
public enum SignatureChecking {
    public enum Verdict: Sendable, Hashable {
        case valid
        /// No signature of this server by a key that is known and was valid at the time.
        case noKnownKey(ServerName)
        /// A signature of this server is wrong.
        case invalid(ServerName)
    }

    /// The verdict on one event: each required signer has signed with a key that we know, and all its signatures with
    /// such keys are right. Signatures by unknown or expired keys are skipped.
    public static func verdict(on event: Event, key: (ServerName, String) -> VerifyKey?) -> Verdict {
        for server in event.requiredSigners {
            var isSigned = false
            for keyID in event.signatureKeyIDs(of: server) {
                guard let key = key(server, keyID), key.keyID.hasSameBytes(as: keyID), key.isUsable(for: event) else {
                    continue
                }
                guard event.verify(signatureOf: server, with: key) else { return .invalid(server) }
                isSigned = true
            }
            if !isSigned { return .noKnownKey(server) }
        }
        return .valid
    }

    /// The verdicts on many events, in their order.
    ///
    /// - Parameters:
    ///   - events: The events.
    ///   - tasks: How many run at the same time.
    ///   - key: The known key of a server by its ID; called from several tasks at once.
    public static func verdicts(
        on events: [Event], tasks: Int = 8, key: @escaping @Sendable (ServerName, String) -> VerifyKey?
    ) async -> [Verdict] {
        // Less than a few verifications are not worth a task.
        let size = max(events.count / max(tasks, 1) + 1, 8)
        return await withTaskGroup(of: (Int, [Verdict]).self) { group in
            for start in stride(from: 0, to: events.count, by: size) {
                group.addTask {
                    (start, events[start..<min(start + size, events.count)].map { verdict(on: $0, key: key) })
                }
            }
            var parts: [(Int, [Verdict])] = []
            for await part in group { parts.append(part) }
            return parts.sorted { $0.0 < $1.0 }.flatMap(\.1)
        }
    }
}
