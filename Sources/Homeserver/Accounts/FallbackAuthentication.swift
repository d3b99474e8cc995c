import Database
import MatrixCore

/// Stages of interactive authentication on pages in a browser, for clients that don't know them (Client-Server API, "Fallback").
extension AccountService {
    /// What a page shows.
    public struct FallbackStage: Sendable {
        public enum Kind: Sendable {
            case dummy, registrationToken, password
            case terms([Configuration.Registration.Terms])
        }

        public let kind: Kind
        public let isCompleted: Bool
        /// Whose password is asked for.
        public let user: UserID?
    }

    private func state(
        of session: String, _ type: String
    ) async throws -> (InteractiveAuthentication.State, InteractiveAuthentication.Stage) {
        guard let state = try await interactive.state(of: session),
            let stage = InteractiveAuthentication.Stage(rawValue: type), state.isNext(stage)
        else {
            throw MatrixError.notFound(
                "This link is over, or belongs to a step that isn't due. Go back to your client and begin anew.")
        }
        return (state, stage)
    }

    private func shown(
        _ stage: InteractiveAuthentication.Stage, of state: InteractiveAuthentication.State
    ) -> FallbackStage {
        let kind: FallbackStage.Kind =
            switch stage {
            case .dummy: .dummy
            case .registrationToken: .registrationToken
            case .password: .password
            case .terms: .terms(settings.terms)
            }
        return FallbackStage(kind: kind, isCompleted: state.isCompleted(stage), user: state.user)
    }

    /// - Throws: `M_NOT_FOUND` if there is no such session or the stage isn't due.
    public func fallbackStage(_ type: String, session: String) async throws -> FallbackStage {
        let (state, stage) = try await state(of: session, type)
        return shown(stage, of: state)
    }

    /// Completes a stage with what was entered.
    ///
    /// - Parameter entered: the registration token or the password.
    /// - Returns: the stage, completed or not: what was entered may have been wrong.
    public func completeFallbackStage(
        _ type: String, session: String, entered: String
    ) async throws -> FallbackStage {
        var (state, stage) = try await state(of: session, type)
        if state.isCompleted(stage) { return shown(stage, of: state) }
        switch stage {
        case .dummy, .terms: state.completed[type] = true
        case .registrationToken:
            guard try await isValidRegistrationToken(entered) else { return shown(stage, of: state) }
            state.completed[type] = .string(entered)
        case .password:
            guard let user = state.user, let account = try await database.account(of: user),
                let hash = account.passwordHash, !account.isDeactivated, entered.utf8.count <= Self.longestPassword,
                try await verify(entered, hash, of: user.string)
            else { return shown(stage, of: state) }
            state.completed[type] = true
        }
        try await interactive.keep(state, as: session)
        return shown(stage, of: state)
    }
}
