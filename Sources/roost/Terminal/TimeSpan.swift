/// Times on the command line, written as in the configuration: `12h`, `7d`.
enum TimeSpan {
    /// - Parameter option: the option with which it is given.
    static func seconds(_ text: String, of option: String) throws(Failure) -> Int {
        let value = ConfigurationValue(node: YAMLNode(content: .scalar(text, isPlain: true), line: 1), base: "")
        do { return try value.seconds() } catch { throw Failure("\(option): \(error.message)", status: 64) }
    }
}
