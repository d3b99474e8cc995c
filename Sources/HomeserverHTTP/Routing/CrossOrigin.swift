import NIOHTTP1

/// Cross-origin headers, so that clients which are web pages may use this server (Client-Server API, "Web Browser Clients").
enum CrossOrigin {
    static func addHeaders(to response: inout Response) {
        response.headers.add(name: "Access-Control-Allow-Origin", value: "*")
        response.headers.add(
            name: "Access-Control-Allow-Methods", value: "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
        response.headers.add(
            name: "Access-Control-Allow-Headers", value: "X-Requested-With, Content-Type, Authorization")
        // Without this a page can't read how long a rate limit wants it to wait.
        response.headers.add(name: "Access-Control-Expose-Headers", value: "Retry-After")
    }

    /// Lets browsers ask once a day and not before every request.
    static func addPreflightHeaders(to response: inout Response) {
        response.headers.add(name: "Access-Control-Max-Age", value: "86400")
    }
}
