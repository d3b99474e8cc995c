import MatrixCore
import NIOHTTP1

/// `GET /`: tells someone who came with a browser what this is and how to sign in. Works without scripts, and takes
/// nothing from anyone else.
public enum LandingPage {
    /// - Parameter baseURL: the homeserver URL that people enter in their clients.
    public static func make(serverName: ServerName, baseURL: String) -> Endpoint {
        var response = Response.html(page(serverName: serverName.string, baseURL: baseURL))
        response.headers.add(contentsOf: securityHeaders)
        response.headers.add(name: "Cache-Control", value: "public, max-age=300")
        return Endpoint(.GET, "/", authentication: .none, rateLimit: .none) { [response] _ in response }
    }

    /// The page may load and run nothing, be framed by nobody and send no one anywhere; its own style is let through by
    /// its hash.
    static let securityHeaders: HTTPHeaders = [
        "Content-Security-Policy": """
        default-src 'none'; style-src \(PageTemplate.hash(PageTemplate.style)); base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox
        """,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    ]

    private static func page(serverName: String, baseURL: String) -> String {
        PageTemplate.page(
            title: serverName,
            main: """
                <h1>\(PageTemplate.escaped(serverName))</h1>
                <p>This is a Matrix homeserver: it keeps the accounts and conversations of its people, and talks to the rest of
                the Matrix network for them.</p>
                <ol>
                <li>Open a Matrix client, on the web, your computer or your phone.</li>
                <li>Choose to sign in, and to use a server of your own choice.</li>
                <li>As homeserver enter <code>\(PageTemplate.escaped(baseURL))</code></li>
                </ol>
                <p>People here are called <code>@name:\(PageTemplate.escaped(serverName))</code></p>
                <footer>Served by Roost.</footer>
                """)
    }
}
