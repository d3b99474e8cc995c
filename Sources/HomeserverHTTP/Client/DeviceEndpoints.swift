import Database
import Homeserver
import MatrixCore

/// Devices, passwords and the end of accounts (Client-Server API, module "Device Management", "Account management").
extension ClientAPI {
    var deviceEndpoints: [Endpoint] {
        let device: PathPattern = "/_matrix/client/{version:v3|r0}/devices/{deviceId}"
        return [
            Endpoint(.GET, "/_matrix/client/{version:v3|r0}/devices", authentication: .accessToken) { request in
                let devices = try await self.homeserver.devices.devices(of: try request.authenticated())
                return .json(["devices": .array(devices.map(\.json))])
            },
            Endpoint(.GET, device, authentication: .accessToken) { request in
                .json(
                    try await self.homeserver.devices.device(request["deviceId"], of: try request.authenticated()).json)
            },
            Endpoint(.PUT, device, authentication: .accessToken) { request in
                let name = try await request.json().root.optionalString("display_name")
                let isNew = try await self.homeserver.devices.rename(
                    request["deviceId"], to: name, of: try request.authenticated())
                var response = Response.empty
                if isNew { response.status = .created }
                return response
            },
            Endpoint(.DELETE, device, authentication: .accessToken) { request in
                let auth = try await request.json(emptyIsObject: true).root.optionalObject("auth")
                return try await Self.answer(
                    self.homeserver.devices.delete([request["deviceId"]], auth: auth, of: try request.authenticated()))
            },
            Endpoint(.POST, "/_matrix/client/{version:v3|r0}/delete_devices", authentication: .accessToken) { request in
                let body = try await request.json().root
                guard let devices = try body.optionalStrings("devices") else {
                    throw MatrixError.missingParam("devices")
                }
                return try await Self.answer(
                    self.homeserver.devices.delete(
                        devices, auth: try body.optionalObject("auth"), of: try request.authenticated()))
            },
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0}/account/password", authentication: .accessToken,
                rateLimit: .login
            ) { request in
                let body = try await request.json().root
                let outcome = try await self.homeserver.devices.setPassword(
                    try body.requiredString("new_password"),
                    endsOthers: try body.optionalBool("logout_devices") ?? true,
                    auth: try body.optionalObject("auth"), of: try request.authenticated())
                return Self.answer(outcome)
            },
            Endpoint(
                .POST, "/_matrix/client/{version:v3|r0}/account/deactivate", authentication: .accessToken,
                rateLimit: .login
            ) { request in
                let body = try await request.json(emptyIsObject: true).root
                // Nothing is bound on an identity server from here.
                _ = try body.optionalString("id_server")
                let outcome = try await self.homeserver.devices.deactivate(
                    erases: try body.optionalBool("erase") ?? false, auth: try body.optionalObject("auth"),
                    of: try request.authenticated())
                return Self.answer(outcome, ["id_server_unbind_result": "success"])
            },
        ]
    }

    static func answer(_ outcome: DeviceService.Outcome, _ done: JSON = [:]) -> Response {
        switch outcome {
        case .done: .json(done)
        case .challenge(let challenge): .json(.object(challenge), status: .unauthorized)
        }
    }
}

extension Device {
    fileprivate var json: JSON {
        var json: JSONObject = ["device_id": .string(deviceID)]
        if let displayName { json["display_name"] = .string(displayName) }
        if let lastSeenTS { json["last_seen_ts"] = .integer(lastSeenTS) }
        if let lastSeenIP { json["last_seen_ip"] = .string(lastSeenIP) }
        return .object(json)
    }
}
