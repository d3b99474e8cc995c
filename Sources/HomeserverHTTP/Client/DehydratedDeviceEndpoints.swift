import Homeserver
import MatrixCore

/// Dehydrated devices (MSC3814), under the paths of the proposal.
extension ClientAPI {
    var dehydratedDeviceEndpoints: [Endpoint] {
        let base = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
        let events = PathPattern("\(base)/{deviceId}/events")
        return [
            Endpoint(.PUT, PathPattern(base), authentication: .accessToken) { request in
                let deviceID = try await self.homeserver.dehydratedDevices.put(
                    try await request.json().root, for: try request.authenticated())
                return .json(["device_id": .string(deviceID)])
            },
            Endpoint(.GET, PathPattern(base), authentication: .accessToken) { request in
                let device = try await self.homeserver.dehydratedDevices.get(for: try request.authenticated())
                return .json(["device_id": .string(device.deviceID), "device_data": .raw(device.deviceData)])
            },
            Endpoint(.DELETE, PathPattern(base), authentication: .accessToken) { request in
                let deviceID = try await self.homeserver.dehydratedDevices.delete(for: try request.authenticated())
                return .json(["device_id": .string(deviceID)])
            },
            Endpoint(.GET, events, authentication: .accessToken) { request in
                let page = try await self.homeserver.dehydratedDevices.events(
                    of: request["deviceId"], from: request.query["from"], for: try request.authenticated())
                var answer: JSON = ["events": .array(page.events)]
                if page.hasMore { answer["next_batch"] = .string(page.next) }
                return .json(answer)
            },
            // As clients ask who know an earlier state of the proposal: they go on until no events come, and need a token
            // every time.
            Endpoint(.POST, events, authentication: .accessToken) { request in
                let from = try await request.json(emptyIsObject: true).root.optionalString("next_batch")
                let page = try await self.homeserver.dehydratedDevices.events(
                    of: request["deviceId"], from: from, for: try request.authenticated())
                return .json(["events": .array(page.events), "next_batch": .string(page.next)])
            },
        ]
    }
}
