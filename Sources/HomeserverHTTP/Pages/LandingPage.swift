import MatrixCore
import NIOHTTP1

/// `GET /`: tells someone who came with a browser what this is and how to sign in. Works without scripts, and takes
/// nothing from anyone else.
public enum LandingPage {
    /// - Parameter baseURL: the homeserver URL that people enter in their clients.
    public static func make(serverName: ServerName, baseURL: String) -> Endpoint {
        var response = Response.html(page(serverName: escaped(serverName.string), baseURL: escaped(baseURL)))
        response.headers.add(contentsOf: securityHeaders)
        response.headers.add(name: "Cache-Control", value: "public, max-age=300")
        return Endpoint(.GET, "/", authentication: .none, rateLimit: .none) { [response] _ in response }
    }

    /// The page may load and run nothing, be framed by nobody and send no one anywhere; its own style is let through by
    /// its hash.
    static let securityHeaders: HTTPHeaders = [
        "Content-Security-Policy": """
        default-src 'none'; style-src '\(styleHash)'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox
        """,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    ]

    private static var styleHash: String {
        let hash = Base64.encode(Hashing.sha256(Array(style.utf8)))
        // Matrix writes Base64 without padding, Content-Security-Policy with it.
        return "sha256-" + hash + String(repeating: "=", count: (4 - hash.utf8.count % 4) % 4)
    }

    private static let style = """

        body { margin: 0; min-height: 100vh; display: grid; place-items: center; line-height: 1.5;
          font-family: system-ui, sans-serif; background: #f6f4ef; color: #26231e; }
        main { max-width: 32rem; padding: 2rem; }
        h1 { margin: 0 0 .5rem; font-size: 1.75rem; overflow-wrap: anywhere; }
        ol { padding-left: 1.25rem; }
        li { margin: .5rem 0; }
        code { padding: .1rem .4rem; border-radius: .3rem; background: #e8e3d8; overflow-wrap: anywhere; user-select: all; }
        footer { margin-top: 2rem; font-size: .875rem; opacity: .7; }
        @media (prefers-color-scheme: dark) {
          body { background: #1d1b18; color: #e9e5dc; }
          code { background: #35312a; }
        }

        """

    private static func page(serverName: String, baseURL: String) -> String {
        """
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta name="color-scheme" content="light dark">
        <title>\(serverName)</title>
        <style>\(style)</style>
        </head>
        <body>
        <main>
        <h1>\(serverName)</h1>
        <p>This is a Matrix homeserver: it keeps the accounts and conversations of its people, and talks to the rest of
        the Matrix network for them.</p>
        <ol>
        <li>Open a Matrix client, on the web, your computer or your phone.</li>
        <li>Choose to sign in, and to use a server of your own choice.</li>
        <li>As homeserver enter <code>\(baseURL)</code></li>
        </ol>
        <p>People here are called <code>@name:\(serverName)</code></p>
        <footer>Served by Roost.</footer>
        </main>
        </body>
        </html>

        """
    }

    private static func escaped(_ text: String) -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
            .replacing("\"", with: "&quot;")
    }
}
