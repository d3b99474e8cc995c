import Homeserver
import NIOHTTP1

/// The page on which a stage of interactive authentication is completed in a browser (Client-Server API, "Fallback").
enum FallbackPage {
    /// Tells the client that opened the page that it may go on; the specification's own words.
    private static let script = """
        if (window.onAuthDone) {
            window.onAuthDone();
        } else if (window.opener && window.opener.postMessage) {
            window.opener.postMessage("authDone", "*");
        }
        """

    /// The client that opened the page must stay reachable from it, so there is no sandbox and no policy on openers. The address
    /// holds the session: it goes nowhere, and nothing is kept.
    private static let headers: HTTPHeaders = [
        "Content-Security-Policy": """
        default-src 'none'; style-src \(PageTemplate.hash(PageTemplate.style)); \
        script-src \(PageTemplate.hash(script)); base-uri 'none'; form-action 'self'; frame-ancestors 'none'
        """,
        "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store",
    ]

    private static func response(_ title: String, _ main: String, _ status: HTTPResponseStatus = .ok) -> Response {
        var response = Response.html(
            PageTemplate.page(title: title, main: "<h1>\(PageTemplate.escaped(title))</h1>\n\(main)"), status: status)
        response.headers.add(contentsOf: headers)
        return response
    }

    static func problem(_ error: MatrixError) -> Response {
        response(
            "This didn't work", "<p class=\"problem\">\(PageTemplate.escaped(error.message))</p>",
            HTTPResponseStatus(statusCode: error.status))
    }

    /// - Parameter isSecondTry: whether something wrong has been entered.
    static func make(
        _ stage: AccountService.FallbackStage, session: String, serverName: String, isSecondTry: Bool
    ) -> Response {
        if stage.isCompleted {
            return response(
                "Done", "<p>You can close this page and go back to your client.</p>\n<script>\(script)</script>")
        }
        let (title, fields, button, complaint) = form(stage, serverName)
        let problem = isSecondTry ? "<p class=\"problem\" role=\"alert\">\(complaint)</p>\n" : ""
        return response(
            title,
            """
            \(problem)<form method="post">
            <input type="hidden" name="session" value="\(PageTemplate.escaped(session))">
            \(fields)
            <button>\(button)</button>
            </form>
            """)
    }

    private static func form(
        _ stage: AccountService.FallbackStage, _ serverName: String
    ) -> (title: String, fields: String, button: String, complaint: String) {
        switch stage.kind {
        case .dummy: return ("Go on?", "<p>There is nothing to be proved.</p>", "Go on", "")
        case .registrationToken:
            let fields = """
                <label for="entered">The registration token that you were given for \(PageTemplate.escaped(serverName))</label>
                <input id="entered" name="entered" autocomplete="off" maxlength="64" required autofocus>
                """
            return ("Registration token", fields, "Go on", "This token is unknown, used up or expired.")
        case .password:
            let user = PageTemplate.escaped(stage.user?.string ?? "your account")
            let fields = """
                <label for="entered">The password of \(user)</label>
                <input id="entered" name="entered" type="password" autocomplete="current-password" required autofocus>
                """
            return ("Is it you?", fields, "Confirm", "The password is wrong.")
        case .terms(let documents):
            let list = documents.map {
                """
                <li><a href="\(PageTemplate.escaped($0.url))" target="_blank" rel="noopener noreferrer" \
                lang="\(PageTemplate.escaped($0.language))">\(PageTemplate.escaped($0.name))</a></li>
                """
            }
            let fields = "<p>Whoever makes an account accepts:</p>\n<ul>\n\(list.joined(separator: "\n"))\n</ul>"
            return ("Terms of \(serverName)", fields, "Accept", "")
        }
    }
}
