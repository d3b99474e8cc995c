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
            let device = try await devices(of: requester).first(where: { $0.deviceID.hasSameBytes(as: deviceID) }
            )
        else { throw MatrixError.notFound("You have no such device.") }
        return device
    }

    /// Gives a device a name.
    ///
    /// - Returns: whether the device is new: application services make theirs so.
    public func rename(_ deviceID: String, to name: String?, of requester: Requester) async throws -> Bool {
        var isNew = false
        if requester.appservice != nil {
            isNew = try await !devices(of: requester).contains { $0.deviceID.hasSameBytes(as: deviceID) }
            try await put(deviceID, name: nil, of: requester)
        }
        _ = try await device(deviceID, of: requester)
        var write = Write()
        write.renameDevice(deviceID, to: name.map { $0.shortened(to: 100) }, of: requester.nid)
        try await database.announceDevices(of: requester.nid, in: &write)
        try await database.write(write)
        return isNew
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
        let outcome = try await accounts.interactive.advance(
            auth, operation: "\(operation) \(requester.userID)", flows: [[.password]], user: requester.userID
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
        do {
            if !write.isEmpty { try await database.write(write) }
        } catch DatabaseError.conflict {
            throw MatrixError(.unknown, "This authentication session has been used; begin anew.", status: 400)
        }
        try await accounts.tokens.sessionsEnded()
        return .done
    }

    /// Ends devices and their sessions (`DELETE /devices/{deviceId}`, `POST /delete_devices`). Application services need no
    /// further authentication for it.
    public func delete(_ deviceIDs: [String], auth: JSONView?, of requester: Requester) async throws -> Outcome {
        let work = { (write: inout Write) async throws in
            for deviceID in deviceIDs { write.deleteDevice(deviceID, of: requester.nid) }
            // They may have been asked for by one of these.
            write.endBriefTokens(of: requester.nid, .login)
            try await self.database.announceDevices(of: requester.nid, in: &write)
        }
        if requester.appservice == nil {
            return try await confirmed("delete \(deviceIDs.sorted().joined(separator: " "))", auth, requester, work)
        }
        var write = Write()
        try await work(&write)
        try await database.write(write)
        try await accounts.tokens.sessionsEnded()
        return .done
    }

    /// Sets another password (`POST /account/password`).
    ///
    /// - Parameter endsOthers: whether all other sessions end.
    public func setPassword(
        _ password: String, endsOthers: Bool, auth: JSONView?, of requester: Requester
    ) async throws -> Outcome {
        try await confirmed("password", auth, requester) { write in
            write.setPasswordHash(try await self.accounts.hash(password), of: requester.nid)
            // Whoever knew the old password may have asked for one.
            write.endBriefTokens(of: requester.nid)
            guard endsOthers else { return }
            for device in try await self.database.deviceIDs(of: requester.nid)
            where !device.hasSameBytes(as: requester.deviceID) {
                write.deleteDevice(device, of: requester.nid)
            }
            // And those that sign in with the old password until it is changed.
            write.endSessions(of: requester.nid, except: requester.deviceID)
            try await self.database.announceDevices(of: requester.nid, in: &write)
        }
    }

    /// A token with which another device of the user signs in (`POST /login/get_token`).
    ///
    /// - Returns: nil as token until the outcome is ``Outcome/done``.
    public func loginToken(auth: JSONView?, of requester: Requester) async throws -> (Outcome, token: String?) {
        var token: String?
        let outcome = try await confirmed("login token", auth, requester) { write in
            token = self.accounts.makeLoginToken(for: requester.nid, &write)
        }
        return (outcome, token)
    }

    /// Ends the account for good (`POST /account/deactivate`).
    ///
    /// - Parameter erases: whether what the user said is to be shown no more to those who come later.
    public func deactivate(erases: Bool, auth: JSONView?, of requester: Requester) async throws -> Outcome {
        let outcome = try await confirmed("deactivate", auth, requester) { _ in }
        if case .done = outcome {
            _ = try await deactivation.deactivate(requester.userID.string, erases: erases)
        }
        return outcome
    }

    /// Gives a user of an application service a device (Application Service API, "Creating devices").
    public func put(_ deviceID: String, name: String?, of requester: Requester) async throws {
        guard DeviceID(deviceID) != nil else {
            throw MatrixError.invalidParam("The device ID is empty, too long, or has control characters in it.")
        }
        var write = Write()
        write.putDevice(
            deviceID, of: requester.nid, displayName: name.map { $0.shortened(to: 100) },
            at: accounts.surroundings.now())
        write.topics.append(.user(requester.nid))
        try await database.write(write)
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
        // Whoever guesses at signing in keeps nobody who is signed in from this.
        guard try await verify(password, hash, of: "\(requester.userID) \(requester.deviceID)") else { throw wrong }
    }
}
