extension MatrixError {
    /// An error code of the specification, with the HTTP status that usually carries it.
    public struct Code: Sendable, Hashable, CustomStringConvertible {
        /// The code on the wire, such as `M_FORBIDDEN`.
        public let name: String
        /// The HTTP status of answers with this code, unless the endpoint demands another.
        public let status: Int

        /// A code outside the specification; those of the specification are static members.
        public init(_ name: String, status: Int) {
            self.name = name
            self.status = status
        }

        public var description: String { name }

        public static func == (left: Code, right: Code) -> Bool { left.name == right.name }
        public func hash(into hasher: inout Hasher) { hasher.combine(name) }
    }
}

/// Client-Server API, "Standard error response": codes that any endpoint may answer with.
extension MatrixError.Code {
    public static let badJSON = Self("M_BAD_JSON", status: 400)
    public static let forbidden = Self("M_FORBIDDEN", status: 403)
    public static let limitExceeded = Self("M_LIMIT_EXCEEDED", status: 429)
    public static let missingToken = Self("M_MISSING_TOKEN", status: 401)
    public static let notFound = Self("M_NOT_FOUND", status: 404)
    public static let notJSON = Self("M_NOT_JSON", status: 400)
    public static let resourceLimitExceeded = Self("M_RESOURCE_LIMIT_EXCEEDED", status: 403)
    public static let unknown = Self("M_UNKNOWN", status: 500)
    public static let unknownDevice = Self("M_UNKNOWN_DEVICE", status: 400)
    public static let unknownToken = Self("M_UNKNOWN_TOKEN", status: 401)
    public static let unrecognized = Self("M_UNRECOGNIZED", status: 404)
    public static let userLimitExceeded = Self("M_USER_LIMIT_EXCEEDED", status: 403)
    public static let userLocked = Self("M_USER_LOCKED", status: 401)
    public static let userSuspended = Self("M_USER_SUSPENDED", status: 403)
}

/// Codes of single endpoints.
extension MatrixError.Code {
    public static let appserviceLoginUnsupported = Self("M_APPSERVICE_LOGIN_UNSUPPORTED", status: 400)
    public static let badAlias = Self("M_BAD_ALIAS", status: 400)
    public static let badState = Self("M_BAD_STATE", status: 400)
    public static let badStatus = Self("M_BAD_STATUS", status: 502)
    public static let cannotLeaveServerNoticeRoom = Self("M_CANNOT_LEAVE_SERVER_NOTICE_ROOM", status: 403)
    public static let cannotOverwriteMedia = Self("M_CANNOT_OVERWRITE_MEDIA", status: 409)
    public static let captchaInvalid = Self("M_CAPTCHA_INVALID", status: 401)
    public static let captchaNeeded = Self("M_CAPTCHA_NEEDED", status: 401)
    public static let concurrentWrite = Self("M_CONCURRENT_WRITE", status: 412)
    public static let connectionFailed = Self("M_CONNECTION_FAILED", status: 502)
    public static let connectionTimeout = Self("M_CONNECTION_TIMEOUT", status: 504)
    public static let destinationRejected = Self("M_DESTINATION_REJECTED", status: 502)
    public static let duplicateAnnotation = Self("M_DUPLICATE_ANNOTATION", status: 400)
    public static let exclusive = Self("M_EXCLUSIVE", status: 400)
    public static let guestAccessForbidden = Self("M_GUEST_ACCESS_FORBIDDEN", status: 403)
    public static let incompatibleRoomVersion = Self("M_INCOMPATIBLE_ROOM_VERSION", status: 400)
    public static let invalidParam = Self("M_INVALID_PARAM", status: 400)
    public static let invalidRoomState = Self("M_INVALID_ROOM_STATE", status: 400)
    public static let invalidSignature = Self("M_INVALID_SIGNATURE", status: 400)
    public static let invalidUsername = Self("M_INVALID_USERNAME", status: 400)
    public static let inviteBlocked = Self("M_INVITE_BLOCKED", status: 403)
    public static let keyTooLarge = Self("M_KEY_TOO_LARGE", status: 400)
    public static let missingParam = Self("M_MISSING_PARAM", status: 400)
    public static let notYetUploaded = Self("M_NOT_YET_UPLOADED", status: 504)
    public static let profileTooLarge = Self("M_PROFILE_TOO_LARGE", status: 400)
    public static let roomInUse = Self("M_ROOM_IN_USE", status: 400)
    public static let serverNotTrusted = Self("M_SERVER_NOT_TRUSTED", status: 400)
    public static let termsNotSigned = Self("M_TERMS_NOT_SIGNED", status: 403)
    public static let threepidAuthFailed = Self("M_THREEPID_AUTH_FAILED", status: 401)
    public static let threepidDenied = Self("M_THREEPID_DENIED", status: 403)
    public static let threepidInUse = Self("M_THREEPID_IN_USE", status: 400)
    public static let threepidMediumNotSupported = Self("M_THREEPID_MEDIUM_NOT_SUPPORTED", status: 400)
    public static let threepidNotFound = Self("M_THREEPID_NOT_FOUND", status: 400)
    public static let tooLarge = Self("M_TOO_LARGE", status: 413)
    public static let unableToAuthoriseJoin = Self("M_UNABLE_TO_AUTHORISE_JOIN", status: 400)
    public static let unableToGrantJoin = Self("M_UNABLE_TO_GRANT_JOIN", status: 400)
    public static let unauthorized = Self("M_UNAUTHORIZED", status: 401)
    public static let unknownPosition = Self("M_UNKNOWN_POS", status: 400)
    public static let unsupportedRoomVersion = Self("M_UNSUPPORTED_ROOM_VERSION", status: 400)
    public static let urlNotSet = Self("M_URL_NOT_SET", status: 400)
    public static let userDeactivated = Self("M_USER_DEACTIVATED", status: 403)
    public static let userInUse = Self("M_USER_IN_USE", status: 400)
    public static let weakPassword = Self("M_WEAK_PASSWORD", status: 400)
    public static let wrongRoomKeysVersion = Self("M_WRONG_ROOM_KEYS_VERSION", status: 403)
}

/// Codes of the validation of e-mail addresses and telephone numbers, shared with the Identity Service API.
extension MatrixError.Code {
    public static let emailSendError = Self("M_EMAIL_SEND_ERROR", status: 500)
    public static let invalidAddress = Self("M_INVALID_ADDRESS", status: 400)
    public static let invalidEmail = Self("M_INVALID_EMAIL", status: 400)
    public static let invalidPepper = Self("M_INVALID_PEPPER", status: 400)
    public static let noValidSession = Self("M_NO_VALID_SESSION", status: 400)
    public static let sendError = Self("M_SEND_ERROR", status: 500)
    public static let sessionExpired = Self("M_SESSION_EXPIRED", status: 400)
    public static let sessionNotValidated = Self("M_SESSION_NOT_VALIDATED", status: 400)
    public static let tokenIncorrect = Self("M_TOKEN_INCORRECT", status: 400)
}
