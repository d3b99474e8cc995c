import MatrixCore
import NIOHTTP1
import RoostTestSupport
import Testing

@testable import Homeserver
@testable import HomeserverHTTP

/// Threads that are followed, as clients ask for them (MSC4306, MSC4308).
@Suite("Client-Server API: threads that are followed")
struct ThreadSubscriptionEndpointTests {
    private let base = "/_matrix/client/v3"
    private let pages = "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions"
    private let client: ClientSession
    private let alice: String
    private let bob: String
    private let room: String

    init() async throws {
        client = ClientSession(try await TestServer())
        alice = await client.register("alice")
        bob = await client.register("bob")
        room = await client.room(of: alice)
    }

    private func send(_ id: String, replyingTo root: String? = nil) async -> String {
        var content: JSON = ["msgtype": "m.text", "body": .string(id)]
        if let root { content["m.relates_to"] = ["rel_type": "m.thread", "event_id": .string(root)] }
        return await client.ask(.PUT, "\(base)/rooms/\(room)/send/m.room.message/\(id)", alice, content).json[
            "event_id"]?
            .stringValue ?? ""
    }

    private func thread(_ root: String) -> String {
        "/_matrix/client/unstable/io.element.msc4306/rooms/\(room)/thread/\(root)/subscription"
    }

    @Test("one subscribes, is asked and unsubscribes; causes are of the thread, and not from before unsubscribing")
    func subscription() async throws {
        let root = await send("root"), other = await send("other")
        let first = await send("first", replyingTo: root)
        let path = thread(root)
        #expect(await client.ask(.GET, path, alice).code == "M_NOT_FOUND")
        #expect(await client.ask(.DELETE, path, alice).json == [:])
        #expect(await client.ask(.PUT, path, alice, ["automatic": .string(first)]).json == [:])
        #expect(await client.ask(.GET, path, alice).json == ["automatic": true])
        // By the user's own wish, which has no body or an empty one; a client doesn't undo it.
        #expect(await client.ask(.PUT, path, token: alice).status == 200)
        #expect(await client.ask(.GET, path, alice).json == ["automatic": false])
        #expect(await client.ask(.PUT, path, alice, ["automatic": .string(first)]).status == 200)
        #expect(await client.ask(.GET, path, alice).json == ["automatic": false])
        for _ in 0..<2 { #expect(await client.ask(.DELETE, path, alice).status == 200) }
        #expect(await client.ask(.GET, path, alice).status == 404)
        let late = await client.ask(.PUT, path, alice, ["automatic": .string(first)])
        #expect(late.status == 409 && late.code == "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION")
        let second = await send("second", replyingTo: root)
        #expect(await client.ask(.PUT, path, alice, ["automatic": .string(second)]).status == 200)
        for cause in [other, root, "$nowhere"] {
            let answer = await client.ask(.PUT, path, alice, ["automatic": .string(cause)])
            #expect(answer.status == 400 && answer.code == "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD", "\(cause)")
        }
        #expect(await client.ask(.PUT, path, alice, ["automatic": true]).code == "M_BAD_JSON")
        #expect(await client.ask(.PUT, path, alice, ["automatic": "first"]).code == "M_INVALID_PARAM")
        await client.server.close()
    }

    @Test("A20: to who may not see the thread, and of one that isn't there, all is unknown")
    func strangers() async throws {
        let root = await send("root")
        let elsewhere = await client.ask(.POST, "\(base)/createRoom", alice, [:]).json["room_id"]?.stringValue ?? ""
        for (token, path) in [
            (bob, thread(root)), (alice, thread("$nowhere")),
            (alice, thread(root).replacing(room, with: elsewhere)), (alice, thread(root).replacing(room, with: "!x:y")),
        ] {
            for method in [HTTPMethod.GET, .PUT, .DELETE] {
                let answer = await client.ask(method, path, token, [:])
                #expect(answer.status == 404 && answer.code == "M_NOT_FOUND", "\(method) \(answer.summary)")
            }
        }
        for (method, path) in [
            (HTTPMethod.GET, thread(root)), (.PUT, thread(root)), (.DELETE, thread(root)), (.GET, pages),
        ] {
            #expect(await client.ask(method, path, nil, [:]).status == 401)
        }
        await client.server.close()
    }

    @Test("changes are paged backwards, from the newest or a token, down to another one")
    func paging() async throws {
        var roots: [String] = []
        for number in 0..<5 { roots.append(await send("\(number)")) }
        let sync = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
        let name = "io.element.msc4308.thread_subscriptions"
        let body: JSON = ["extensions": [name: ["enabled": true, "limit": 1]]]
        #expect(await client.ask(.PUT, thread(roots[0]), alice, [:]).status == 200)
        let start = await client.ask(.POST, sync, alice, body).json["pos"]?.stringValue ?? ""
        for root in roots[1...] { #expect(await client.ask(.PUT, thread(root), alice, [:]).status == 200) }
        #expect(await client.ask(.DELETE, thread(roots[1]), alice).status == 200)
        func page(_ query: String) async -> JSON {
            let answer = await client.ask(.GET, "\(pages)?dir=b\(query)", alice)
            #expect(answer.status == 200, "\(query): \(answer.summary)")
            return answer.json
        }
        func keys(_ page: JSON, _ name: String) -> Set<String> {
            Set(page[name]?[room]?.objectValue?.map(\.key) ?? [])
        }
        let all = await page("")
        #expect(keys(all, "subscribed") == [roots[0], roots[2], roots[3], roots[4]])
        #expect(keys(all, "unsubscribed") == [roots[1]] && all["end"] == nil)
        #expect(all["unsubscribed"]?[room]?[roots[1]]?["automatic"] == nil)
        // What the answer of a sync left out.
        let told = await client.ask(.POST, "\(sync)?pos=\(start)", alice, body).json["extensions"]?[name] ?? .null
        #expect(keys(told, "unsubscribed") == [roots[1]] && keys(told, "subscribed").isEmpty)
        var found: [Set<String>] = []
        var from = told["prev_batch"]?.stringValue
        while let token = from {
            let page = await page("&from=\(token)&to=\(start)&limit=2")
            found.append(keys(page, "subscribed"))
            from = page["end"]?.stringValue
        }
        #expect(found == [[roots[4], roots[3]], [roots[2]]])
        for query in [
            "", "?dir=f", "?dir=b&limit=0", "?dir=b&limit=-1", "?dir=b&limit=x", "?dir=b&from=x", "?dir=b&to=x",
        ] {
            let answer = await client.ask(.GET, "\(pages)\(query)", alice)
            #expect(answer.status == 400, "\(query): \(answer.summary)")
            #expect(["M_INVALID_PARAM", "M_MISSING_PARAM"].contains(answer.code), "\(query)")
        }
        await client.server.close()
    }
}
