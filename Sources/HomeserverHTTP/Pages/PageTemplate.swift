import MatrixCore
import NIOHTTP1

/// What the server's own pages share. They take nothing from anyone else, and run no scripts but those let through by their
/// hashes.
enum PageTemplate {
    static let style = """

        body { margin: 0; min-height: 100vh; display: grid; place-items: center; line-height: 1.5;
          font-family: system-ui, sans-serif; background: #f6f4ef; color: #26231e; }
        main { max-width: 32rem; padding: 2rem; }
        h1 { margin: 0 0 .5rem; font-size: 1.75rem; overflow-wrap: anywhere; }
        ol, ul { padding-left: 1.25rem; }
        li { margin: .5rem 0; }
        code { padding: .1rem .4rem; border-radius: .3rem; background: #e8e3d8; overflow-wrap: anywhere; user-select: all; }
        label { display: block; margin: 1rem 0 .25rem; }
        input { box-sizing: border-box; width: 100%; padding: .5rem; font: inherit; color: inherit; background: transparent;
          border: 1px solid currentcolor; border-radius: .3rem; }
        button { margin-top: 1.25rem; padding: .5rem 1.25rem; font: inherit; cursor: pointer; border: 0;
          border-radius: .3rem; background: #2f5d50; color: #fff; }
        .problem { color: #a3262a; }
        footer { margin-top: 2rem; font-size: .875rem; opacity: .7; }
        @media (prefers-color-scheme: dark) {
          body { background: #1d1b18; color: #e9e5dc; }
          code { background: #35312a; }
          .problem { color: #f28b82; }
        }

        """

    /// A source of Content-Security-Policy that stands for exactly this text.
    static func hash(_ text: String) -> String {
        let hash = Base64.encode(Hashing.sha256(Array(text.utf8)))
        // Matrix writes Base64 without padding, Content-Security-Policy with it.
        return "'sha256-" + hash + String(repeating: "=", count: (4 - hash.utf8.count % 4) % 4) + "'"
    }

    /// - Parameters:
    ///   - title: not yet escaped.
    ///   - main: what stands within `<main>`, as HTML.
    static func page(title: String, main: String) -> String {
        """
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta name="color-scheme" content="light dark">
        <title>\(escaped(title))</title>
        <style>\(style)</style>
        </head>
        <body>
        <main>
        \(main)
        </main>
        </body>
        </html>

        """
    }

    static func escaped(_ text: String) -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
            .replacing("\"", with: "&quot;").replacing("'", with: "&#39;")
    }
}
