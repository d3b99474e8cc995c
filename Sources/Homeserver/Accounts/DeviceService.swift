import Database
import MatrixCore

/// A user's devices, and what needs the user's password again (Client-Server API, "Device Management", "Account
/// management").
public final class DeviceService: Sendable {
    private let accounts: AccountService
    private let deactivation: DeactivationService
    private var database: Database { accounts.database }

    init(accounts: AccountService, deactivation: DeactivationService) {
        self.accounts = accounts
        self.deactivation = deactivation
    }

    public func devices(of requester: Requester) async throws -> [Device] {
        try await database.devices(of: requester.nid)
    }

    /// - Throws: `M_NOT_FOUND`.
    public func device(_ deviceID: String, of requester: Requester) async throws -> Device {
        guard
            let device = try await devices(of: requester).first(where: { $0.deviceID.utf8.elementsEqual(deviceID.utf8) }
            )
        else { throw MatrixError.notFound("You have no such device.") }
        return device
    }

    public func rename(_ deviceID: String, to name: String?, of requester: Requester) async throws {
        _ = try await device(deviceID, of: requester)
        var write = Write()
        write.renameDevice(deviceID, to: name.map { String($0.prefix(100)) }, of: requester.nid)
        try await database.announceDevices(of: requester.nid, in: &write)
        try await database.write(write)
    }

    /// Whether something is done, or more authentication is needed first.
    public enum Outcome: Sendable {
        case done
        /// The body of the answer with status 401.
        case challenge(JSONObject)
    }

    /// Does something after the user has proved again to be the user, by the password.
    func confirmed(
        _ operation: String, _ auth: JSONView?, _ requester: Requester, _ work: (inout Write) async throws -> Void
    ) async throws -> Outcome {
        let interactive = InteractiveAuthentication(database: database, surroundings: accounts.surroundings)
        let outcome = try await interactive.advance(
            auth, operation: "\(operation) \(requester.userID)", flows: [[.password]]
        ) { _, auth in
            let user = auth["identifier"]?["user"]?.string ?? auth["user"]?.string ?? requester.userID.string
            guard let password = auth["password"]?.string else { throw MatrixError.missingParam("password") }
            try await self.accounts.confirm(user: user, password: password, is: requester)
            return true
        }
        guard case .complete(let session, _) = outcome else {
            guard case .challenge(let body) = outcome else { preconditionFailure("an outcome is one or the other") }
            return .challenge(body)
        }
        var write = Write()
        if let session { write.endInteractiveSession(session) }
        try await work(&write)
        if !write.isEmpty { try await database.write(write) }
        accounts.tokens.forgetAll()
        return .done
    }

    /// Ends devices and their sessions (`DELETE /devices/{deviceId}`, `POST /delete_devices`).
    public func delete(_ deviceIDs: [String], auth: JSONView?, of requester: Requester) async throws -> Outcome {
        try await confirmed("delete \(deviceIDs.sorted().joined(separator: " "))", auth, requester) { write in
            for deviceID in deviceIDs { write.deleteDevice(deviceID, of: requester.nid) }
            try await self.database.announceDevices(of: requester.nid, in: &write)
        }
    }

    /// Sets another password (`POST /account/password`).
    ///
    /// - Parameter endsOthers: whether all other sessions end.
    public func setPassword(
        _ password: String, endsOthers: Bool, auth: JSONView?, of requester: Requester
    ) async throws -> Outcome {
        try await confirmed("password", auth, requester) { write in
            write.setPasswordHash(try await self.accounts.hash(password), of: requester.nid)
            guard endsOthers else { return }
            for device in try await self.database.deviceIDs(of: requester.nid) where device != requester.deviceID {
                write.deleteDevice(device, of: requester.nid)
            }
            try await self.database.announceDevices(of: requester.nid, in: &write)
        }
    }

    /// Ends the account for good (`POST /account/deactivate`).
    public func deactivate(auth: JSONView?, of requester: Requester) async throws -> Outcome {
        let outcome = try await confirmed("deactivate", auth, requester) { _ in }
        if case .done = outcome { _ = try await deactivation.deactivate(requester.userID.string) }
        return outcome
    }
}

extension AccountService {
    /// Checks that a password is the requester's.
    ///
    /// - Throws: `M_FORBIDDEN` if it isn't, or is another user's.
    func confirm(user: String, password: String, is requester: Requester) async throws {
        let wrong = MatrixError.forbidden("The password is wrong.")
        let named = user.utf8.first == UInt8(ascii: "@") ? UserID(user) : UserID("@\(user.lowercased()):\(serverName)")
        guard named == requester.userID, password.utf8.count <= Self.longestPassword,
            let hash = try await database.account(requester.nid)?.passwordHash
        else { throw wrong }
        guard try await passwords.run({ PasswordHash.verify(password, hash) }) else { throw wrong }
    }
}
