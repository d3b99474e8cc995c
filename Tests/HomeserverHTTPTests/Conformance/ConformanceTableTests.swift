import MatrixCore
import Testing

@testable import HomeserverHTTP

@Suite("The table of facts")
struct ConformanceTableTests {
    private func problems(
        _ method: String, _ path: String, _ status: Int, _ body: String, isFile: Bool = false
    ) throws -> [String] {
        let operation = try #require(ConformanceTable.shared.operation(method, path[...]))
        return operation.violations(status: status, body: Array(body.utf8), isFile: isFile).map(\.path)
    }

    @Test("finds the operation of a path: literals before parameters, older versions, empty state keys")
    func operations() {
        func name(_ method: String, _ path: String) -> String? {
            ConformanceTable.shared.operation(method, path[...])?.name
        }
        let base = "/_matrix/client/v3"
        #expect(name("GET", "\(base)/sync") == "GET \(base)/sync")
        #expect(name("GET", "/_matrix/client/r0/sync") == "GET \(base)/sync")
        #expect(name("GET", "\(base)/rooms/!a:b/state") == "GET \(base)/rooms/{roomId}/state")
        let state = "GET \(base)/rooms/{roomId}/state/{eventType}/{stateKey}"
        for path in ["m.room.name", "m.room.name/", "m.room.member/@a:b"] {
            #expect(name("GET", "\(base)/rooms/!a:b/state/\(path)") == state)
        }
        #expect(name("GET", "\(base)/register/available") == "GET \(base)/register/available")
        #expect(name("DELETE", "\(base)/sync") == nil)
        #expect(name("GET", "\(base)/nothing") == nil)
        #expect(ConformanceTable.shared.operations.count > 160)
    }

    @Test("right answers have no violations")
    func right() throws {
        let base = "/_matrix/client/v3"
        #expect(try problems("GET", "\(base)/account/whoami", 200, #"{"user_id":"@a:b","more":1}"#) == [])
        #expect(try problems("GET", "\(base)/login", 200, #"{"flows":[{"type":"m.login.password"}]}"#) == [])
        #expect(try problems("GET", "\(base)/sync", 200, #"{"next_batch":"x","rooms":{"join":{}}}"#) == [])
        #expect(
            try problems("GET", "\(base)/account/whoami", 401, #"{"errcode":"M_MISSING_TOKEN","error":"x"}"#) == [])
        #expect(try problems("POST", "\(base)/register", 401, #"{"flows":[{"stages":["a"]}],"session":"x"}"#) == [])
        #expect(try problems("GET", "/_matrix/client/v1/media/download/a/b", 200, "", isFile: true) == [])
    }

    @Test("every way of departing from the facts is a violation, named by its place")
    func wrong() throws {
        let base = "/_matrix/client/v3"
        let whoami = "\(base)/account/whoami"
        #expect(try problems("GET", whoami, 200, "{}") == [".user_id"])
        #expect(try problems("GET", whoami, 200, #"{"user_id":7}"#) == [".user_id"])
        #expect(try problems("GET", whoami, 200, #"{"user_id":"alice"}"#) == [".user_id"])
        #expect(try problems("GET", whoami, 200, #"{"user_id":"@a:b","is_guest":"no"}"#) == [".is_guest"])
        #expect(try problems("GET", whoami, 200, "[]") == [""])
        #expect(try problems("GET", whoami, 200, "{") == [""])
        #expect(try problems("GET", whoami, 200, "", isFile: true) == [""])
        #expect(try problems("GET", whoami, 201, "{}") == ["status"])
        #expect(try problems("GET", whoami, 502, #"{"errcode":"M_UNKNOWN","error":"x"}"#) == ["status"])
        #expect(try problems("GET", whoami, 403, #"{"errcode":"M_MADE_UP","error":"x"}"#) == [""])
        #expect(try problems("GET", whoami, 403, #"{"error":"x"}"#) == [""])
        #expect(try problems("GET", whoami, 403, #"{"errcode":"M_FORBIDDEN"}"#) == [""])
        #expect(try problems("GET", "\(base)/login", 200, #"{"flows":[{}]}"#) == [".flows[0].type"])
        let list = "\(base)/directory/list/room/!a:b"
        #expect(try problems("GET", list, 200, #"{"visibility":"hidden"}"#) == [".visibility"])
        let sync = #"{"next_batch":"x","rooms":{"join":{"!a:b":{"timeline":{"events":[{"type":"m"}]}}}}}"#
        #expect(
            try problems("GET", "\(base)/sync", 200, sync)
                == ["content", "event_id", "origin_server_ts", "sender"].map {
                    ".rooms.join.!a:b.timeline.events[0].\($0)"
                })
        #expect(try problems("POST", "\(base)/register", 401, #"{"flows":7}"#) == [".flows"])
    }
}
