import Homeserver

/// Reads the registration file of an application service (Application Service API, "Registration"). Keys that this server doesn't know
/// are for other servers, or from proposals, and are passed over.
struct AppserviceFile {
    private let path: String
    private let members: [String: YAMLNode]

    struct Failure: Error {
        let reason: String
    }

    static func read(_ path: String) throws(Failure) -> AppserviceRegistration {
        let bytes: [UInt8]
        do { bytes = try FileBytes.read(path, limit: 1024 * 1024) } catch {
            throw Failure(reason: "\(path): \(error.reason)")
        }
        let root: YAMLNode?
        do { root = try YAMLReader.read(bytes) } catch {
            throw Failure(reason: "\(path):\(error.line): \(error.reason)")
        }
        guard let root, case .mapping(let pairs) = root.content else {
            throw Failure(reason: "\(path) is not a mapping of keys to values")
        }
        return try AppserviceFile(path: path, members: members(pairs)).registration()
    }

    private static func members(_ pairs: [(key: YAMLNode, value: YAMLNode)]) -> [String: YAMLNode] {
        pairs.reduce(into: [:]) { members, pair in
            if case .scalar(let name, _) = pair.key.content { members[name] = pair.value }
        }
    }

    private func registration() throws(Failure) -> AppserviceRegistration {
        let namespaces: [String: YAMLNode] =
            if case .mapping(let pairs)? = members["namespaces"]?.content { Self.members(pairs) } else { [:] }
        var protocols: [String] = []
        for node in try list("protocols", members) {
            guard case .scalar(let text, _) = node.content else { throw failure("protocols", node) }
            protocols.append(text)
        }
        let url = members["url"].flatMap { $0.isNull ? nil : $0 }
        return AppserviceRegistration(
            id: try text("id"), url: url == nil ? nil : try text("url"), asToken: try text("as_token"),
            hsToken: try text("hs_token"), senderLocalpart: try text("sender_localpart"),
            isRateLimited: try truth("rate_limited", members) ?? true, users: try patterns("users", namespaces),
            aliases: try patterns("aliases", namespaces), rooms: try patterns("rooms", namespaces),
            protocols: protocols, receivesEphemeral: try truth("receive_ephemeral", members) ?? false)
    }

    private func failure(_ key: String, _ node: YAMLNode? = nil) -> Failure {
        guard let node else { return Failure(reason: "\(path) has no “\(key)”") }
        return Failure(
            reason: "\(path):\(node.line): “\(key)” is not what an application service's registration has there")
    }

    private func text(_ key: String) throws(Failure) -> String {
        guard let node = members[key] else { throw failure(key) }
        guard case .scalar(let text, _) = node.content, !text.isEmpty, !node.isNull else { throw failure(key, node) }
        return text
    }

    private func truth(_ key: String, _ members: [String: YAMLNode]) throws(Failure) -> Bool? {
        guard let node = members[key], !node.isNull else { return nil }
        switch node.content {
        case .scalar("true", _): return true
        case .scalar("false", _): return false
        default: throw failure(key, node)
        }
    }

    private func list(_ key: String, _ members: [String: YAMLNode]) throws(Failure) -> [YAMLNode] {
        guard let node = members[key], !node.isNull else { return [] }
        guard case .sequence(let nodes) = node.content else { throw failure(key, node) }
        return nodes
    }

    private func patterns(
        _ key: String, _ namespaces: [String: YAMLNode]
    ) throws(Failure) -> [AppserviceRegistration.Namespace] {
        var found: [AppserviceRegistration.Namespace] = []
        for node in try list(key, namespaces) {
            guard case .mapping(let pairs) = node.content else { throw failure(key, node) }
            let members = Self.members(pairs)
            guard case .scalar(let regex, _)? = members["regex"]?.content, let pattern = NamespacePattern(regex) else {
                throw Failure(
                    reason: "\(path):\(node.line): in “\(key)” there is no “regex” that is a regular expression")
            }
            found.append(.init(isExclusive: try truth("exclusive", members) ?? false, pattern: pattern))
        }
        return found
    }
}
