import Homeserver
import MatrixCore

/// Push rules (Client-Server API, module "Push Notifications", "Push Rules: API").
extension ClientAPI {
    var pushRuleEndpoints: [Endpoint] {
        let all = "/_matrix/client/{version:v3|r0}/pushrules"
        let kinds = PushRule.Kind.allCases.map(\.rawValue).joined(separator: "|")
        let rule = "\(all)/global/{kind:\(kinds)}/{ruleId}"
        return [
            Endpoint(.GET, [PathPattern(all), PathPattern("\(all)/")], authentication: .accessToken) { request in
                let rules = try await self.homeserver.pushRules.rules(of: try request.authenticated())
                return .json(["global": rules.json])
            },
            Endpoint(
                .GET, [PathPattern("\(all)/global"), PathPattern("\(all)/global/")], authentication: .accessToken
            ) { request in
                .json(try await self.homeserver.pushRules.rules(of: try request.authenticated()).json)
            },
            Endpoint(.GET, PathPattern(rule), authentication: .accessToken) { request in
                .json(try await self.rule(request).json(kind: try request.pushRuleKind()))
            },
            Endpoint(.PUT, PathPattern(rule), authentication: .accessToken, handler: putRule),
            Endpoint(.DELETE, PathPattern(rule), authentication: .accessToken) { request in
                try await self.homeserver.pushRules.delete(
                    request["ruleId"], kind: try request.pushRuleKind(), of: try request.authenticated())
                return .empty
            },
            Endpoint(.GET, PathPattern("\(rule)/enabled"), authentication: .accessToken) { request in
                .json(["enabled": .bool(try await self.rule(request).isEnabled)])
            },
            Endpoint(.PUT, PathPattern("\(rule)/enabled"), authentication: .accessToken) { request in
                let isEnabled = try await request.json().root.requiredBool("enabled")
                return try await self.update(request) { $0.isEnabled = isEnabled }
            },
            Endpoint(.GET, PathPattern("\(rule)/actions"), authentication: .accessToken) { request in
                .json(["actions": .array(try await self.rule(request).actions.json)])
            },
            Endpoint(.PUT, PathPattern("\(rule)/actions"), authentication: .accessToken) { request in
                let actions = try Self.actions(try await request.json().root)
                return try await self.update(request) { $0.actions = actions }
            },
        ]
    }

    private func rule(_ request: Request) async throws -> PushRule {
        try await homeserver.pushRules.rule(
            request["ruleId"], kind: try request.pushRuleKind(), of: try request.authenticated())
    }

    private func update(_ request: Request, _ change: (inout PushRule) -> Void) async throws -> Response {
        try await homeserver.pushRules.update(
            request["ruleId"], kind: try request.pushRuleKind(), of: try request.authenticated(), change)
        return .empty
    }

    private static func actions(_ body: JSONView) throws -> PushActions {
        guard let actions = try body.optionalArray("actions") else { throw MatrixError.missingParam("actions") }
        guard actions.allSatisfy({ $0.string != nil || $0.isObject }) else {
            throw MatrixError.badJSON("“actions” must hold strings and objects.")
        }
        return PushActions(actions.map(\.json))
    }

    /// A condition is stored as it came, so what can't be right must be found before.
    private static func check(_ condition: JSONView) throws {
        guard condition.isObject, condition["kind"]?.string != nil else {
            throw MatrixError.badJSON("Each of the “conditions” must be an object with a “kind”.")
        }
        for key in ["key", "pattern", "is"] { _ = try condition.optionalString(key) }
        guard let value = condition["value"], !value.isNull else { return }
        guard value.string != nil || value.integer != nil || value.bool != nil else {
            throw MatrixError.badJSON("The “value” of a condition must be a string, an integer, true, false or null.")
        }
    }

    private func putRule(_ request: Request) async throws -> Response {
        let kind = try request.pushRuleKind()
        let body = try await request.json().root
        let conditions = try body.optionalArray("conditions") ?? []
        try conditions.forEach(Self.check)
        let pattern = try body.optionalString("pattern")
        if kind == .content, pattern == nil { throw MatrixError.missingParam("pattern") }
        let rule = PushRule(
            id: request["ruleId"], actions: try Self.actions(body),
            conditions: kind.hasConditions ? conditions.map { PushCondition($0.json) } : [],
            pattern: kind == .content ? pattern : nil)
        try await homeserver.pushRules.put(
            rule, kind: kind, before: request.query["before"], after: request.query["after"],
            of: try request.authenticated())
        return .empty
    }
}

extension Request {
    fileprivate func pushRuleKind() throws -> PushRule.Kind {
        guard let kind = PushRule.Kind(rawValue: self["kind"]) else {
            throw MatrixError.invalidParam("“\(self["kind"])” is not a kind of push rules.")
        }
        return kind
    }
}
