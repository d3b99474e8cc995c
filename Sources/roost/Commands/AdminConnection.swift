import ArgumentParser
import Homeserver
import HomeserverHTTP
import Logging
import MatrixCore
import NIOHTTP1
import NIOPosix

/// The way from a command to the server's own API: through the socket of the running server, or, when none runs, with
/// the data directory locked, straight to the services in this process.
struct AdminConnection {
    let configuration: Configuration

    /// - Returns: the answer's JSON.
    /// - Throws: ``Failure`` with the server's own words when it refuses.
    func send(_ method: HTTPMethod, _ path: String, _ body: JSON = [:]) async throws -> JSONDocument {
        let target = "/_roost/admin/v1" + path
        let socket = LocalSocketClient(path: DataDirectory.socketPath(in: configuration.dataPath))
        let answer: (status: Int, body: [UInt8])
        if let answered = try await socket.send(method, target, body: body.encoded()) {
            answer = answered
        } else {
            answer = try await sendInProcess(method, target, body.encoded())
        }
        let document = try JSONDocument(parsing: answer.body)
        guard answer.status < 300 else {
            throw Failure(document.root["error"]?.string ?? "the server answered with status \(answer.status)")
        }
        return document
    }

    private func sendInProcess(
        _ method: HTTPMethod, _ target: String, _ body: [UInt8]
    ) async throws -> (status: Int, body: [UInt8]) {
        var quiet = configuration.log
        quiet.level = .warning
        ServerLog.bootstrap(quiet)
        let lock = try DataDirectory(configuration.dataPath)
        let application = try await Wiring.start(configuration)
        let router = Router(application.localEndpoints(configuration))
        let response = await router.respond(
            to: Request(
                method, target, body: RequestBody(bytes: body), id: "command",
                eventLoop: MultiThreadedEventLoopGroup.singleton.next()))
        await application.stop()
        withExtendedLifetime(lock) {}
        guard case .bytes(let bytes) = response.body else { return (Int(response.status.code), []) }
        return (Int(response.status.code), bytes)
    }

    /// A part of a path, with everything encoded that isn't plainly harmless.
    static func segment(_ text: String) -> String {
        text.utf8.map { byte in
            let isPlain = (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
            let hex = String(byte, radix: 16, uppercase: true)
            return isPlain ? String(UnicodeScalar(byte)) : "%" + (hex.count == 1 ? "0" : "") + hex
        }.joined()
    }
}
