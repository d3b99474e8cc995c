import Glibc

/// Asks for passwords: on a terminal without showing them, else from standard input. Never from the command line, which
/// every user of the machine can read.
enum PasswordPrompt {
    /// - Throws: ``Failure`` when nothing is entered, or the two entries differ.
    static func newPassword(for user: String) throws(Failure) -> String {
        guard isatty(STDIN_FILENO) == 1 else {
            guard let line = readLine(strippingNewline: true), !line.isEmpty else {
                throw Failure("no password came on standard input; type one, or run this in a terminal")
            }
            return line
        }
        let password = hidden("Password for \(user): ")
        guard !password.isEmpty else { throw Failure("a password can't be empty") }
        guard hidden("Once more: ") == password else {
            throw Failure("the two passwords differ; nothing was changed")
        }
        return password
    }

    private static func hidden(_ prompt: String) -> String {
        Terminal.write(prompt, to: STDERR_FILENO)
        var before = termios()
        tcgetattr(STDIN_FILENO, &before)
        var silent = before
        silent.c_lflag &= ~tcflag_t(ECHO)
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent)
        defer {
            tcsetattr(STDIN_FILENO, TCSAFLUSH, &before)
            Terminal.write("\n", to: STDERR_FILENO)
        }
        return readLine(strippingNewline: true) ?? ""
    }
}
