import MatrixCore

/// Request bodies made from the table of facts: right ones, and right ones with one thing wrong in them.
struct GeneratedBodies {
    /// An identifier of each kind that names something the asker may name.
    let identifiers: [String: String]

    /// A body with one thing wrong.
    struct Mutation {
        let what: String
        let body: JSON
    }

    /// The smallest value that the fact allows.
    func sample(_ fact: Fact) -> JSON {
        switch fact {
        case .any, .bytes, .error: [:]
        case .string: "text"
        case .integer, .number: 1
        case .boolean: true
        case .null: .null
        case .identifier(let kind): .string(identifiers[kind] ?? "localhost")
        case .enumeration(let values): values.first ?? .null
        case .array: []
        case .oneOf(let choices): choices.first.map(sample) ?? [:]
        case .object(let object): sample(object)
        }
    }

    private func sample(_ object: Fact.Object) -> JSON {
        .object(
            JSONObject(
                object.fields.filter { object.required.contains($0.name) }.map { ($0.name, sample($0.fact)) }))
    }

    /// The smallest right values with one optional member more, or another value of an enumeration; at any depth.
    func variants(of fact: Fact, at path: String = "") -> [Mutation] {
        switch fact {
        case .enumeration(let values):
            return values.map { Mutation(what: "\(path) = \(GeneratedInputScene.text($0))", body: $0) }
        case .array(let item): return variants(of: item, at: "\(path)[]").map { .init(what: $0.what, body: [$0.body]) }
        case .oneOf(let choices): return choices.flatMap { variants(of: $0, at: path) }
        case .object(let object):
            let right = sample(object)
            let more = object.fields.flatMap { name, fact in
                variants(of: fact, at: "\(path).\(name)").map {
                    Mutation(what: $0.what, body: Self.replacing(name, in: right, with: $0.body))
                }
            }
            return [Mutation(what: path, body: right)] + more
        default: return [Mutation(what: path, body: sample(fact))]
        }
    }

    /// Everything that is wrong in one place: a required member missing, a value of another type, a value out of range, an
    /// identifier of the wrong form; at any depth.
    func mutations(of fact: Fact, at path: String = "") -> [Mutation] {
        switch fact {
        case .object(let object):
            let right = sample(object)
            let missing = object.required.sorted().map { name in
                Mutation(what: "\(path).\(name) missing", body: Self.replacing(name, in: right, with: nil))
            }
            let wrong = object.fields.flatMap { name, fact in
                self.wrong(fact, at: "\(path).\(name)", isRequired: object.required.contains(name)).map {
                    Mutation(what: $0.what, body: Self.replacing(name, in: right, with: $0.body))
                }
            }
            return missing + wrong
        case .array(let item):
            return wrong(item, at: "\(path)[]", isRequired: true).map {
                Mutation(what: $0.what, body: .array([$0.body]))
            }
        case .oneOf(let choices):
            return choices.flatMap { mutations(of: $0, at: path) }.filter { !fact.violations(of: $0.body).isEmpty }
        default: return []
        }
    }

    private func wrong(_ fact: Fact, at path: String, isRequired: Bool) -> [Mutation] {
        // null stands for an absent member in what many clients send, so it is wrong only where the member is required.
        let values: [JSON] = [true, 7, 1.5, "no such value", [], [:]] + (isRequired ? [.null] : [])
        let others = values.filter { !fact.violations(of: $0).isEmpty }.map {
            Mutation(what: "\(path) = \(String(decoding: $0.encoded(), as: UTF8.self))", body: $0)
        }
        return others + mutations(of: fact, at: path)
    }

    private static func replacing(_ name: String, in body: JSON, with value: JSON?) -> JSON {
        var body = body
        body[name] = value
        return body
    }
}
