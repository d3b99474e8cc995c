import Database
import Logging
import MatrixCore
import Synchronization

/// A homeserver: the services, put together. It knows nothing of HTTP; whoever starts it gives it a database, and the
/// clock and generator that it is to go by.
public final class Homeserver: Sendable {
    public let configuration: Configuration
    public let database: Database
    public let accounts: AccountService
    public let appservices: Appservices
    public let lastSeen: LastSeen
    public let reports: ReportService
    public let memberships: MembershipService
    public let deactivation: DeactivationService
    public let devices: DeviceService
    public let profiles: ProfileService
    public let accountData: AccountDataService
    public let pushRules: PushRuleService
    public let userDirectory: UserDirectoryService
    public let presence: PresenceService
    public let notificationList: NotificationList
    public let previews: RoomPreviews
    public let creation: RoomCreationService
    public let sending: SendingService
    public let reading: RoomReading
    public let delayedEvents: DelayedEventService
    public let threadSubscriptions: ThreadSubscriptionService
    public let directory: DirectoryService
    public let spaces: SpaceHierarchy
    public let search: SearchService
    public let pushers: PusherService
    public let receipts: ReceiptService
    public let sync: SyncService
    public let slidingSync: SlidingSyncService
    public let filters: FilterService
    public let deviceKeys: DeviceKeyService
    public let crossSigning: CrossSigningService
    public let deviceLists: DeviceListService
    public let toDevice: ToDeviceService
    public let keyBackups: KeyBackupService
    public let dehydratedDevices: DehydratedDeviceService
    public let media: MediaService
    public let federation: FederationService
    /// nil unless rooms may have this server as their policy server.
    public let policySigning: PolicySigning?
    private let partialRooms: PartialRooms
    private let sharedEphemera: SharedEphemera
    public let signingKeys: SigningKeys
    public let rateLimits: RateLimiter
    public let maintenance: MaintenanceService
    public let mediaPurging: RemoteMediaPurging
    public let purging: PurgeService
    let redactions: RedactionJob
    let forgetting: TransactionForgetting
    let indexing: SearchIndexing
    let fillings: [BackgroundFilling]
    private let logger: Logger
    /// What runs in the background until it is done. The lock protects the reference alone.
    private let filling = Mutex<Task<Void, Never>?>(nil)
    public let surroundings: Surroundings

    private let notifier: Notifier
    private let pools: [BlockingPool]

    /// Prepares the database for this server and puts the services together.
    ///
    /// - Throws: ``DatabaseError/unusable(_:)`` if the database belongs to another server name or the signing key can't
    ///   be used.
    public init(
        configuration: Configuration, engine: any Engine, surroundings: Surroundings, logger: Logger,
        transport: any FederationTransport = NoFederation()
    ) async throws {
        let database = Database(engine: engine)
        try await database.numberWellKnown()
        self.configuration = configuration
        self.database = database
        self.surroundings = surroundings
        let identity = ServerIdentity(database: database, surroundings: surroundings)
        try await identity.claim(configuration.serverName)
        pushRules = PushRuleService(
            database: database, followsThreads: configuration.threads.notifyFollowersOnly)
        let ignored = IgnoredUsers(database: database)
        let judge = NotificationJudge(
            database: database, serverName: configuration.serverName, pushRules: pushRules)
        let appservices = Appservices(
            configuration.appservices, database: database, serverName: configuration.serverName)
        try await appservices.prepare(at: surroundings.now())
        self.appservices = appservices
        let node = Hex.encode(surroundings.randomBytes(8))
        let signingKeys = SigningKeys(
            try await identity.signingKey(seededFrom: configuration.signingKeyPath), database: database,
            surroundings: surroundings)
        self.signingKeys = signingKeys
        let context = RoomContext(
            database: database, serverName: configuration.serverName,
            signingKeys: signingKeys,
            surroundings: surroundings, node: node,
            keepRedacted: Int64(configuration.redactions.keepFor) * 1_000,
            restoredAt: try await database.restoredAt(), notifications: judge, ignored: ignored,
            erasures: try await Erasures(database: database), appservices: appservices)
        let health = PeerHealth(surroundings: surroundings)
        let client = FederationClient(
            serverName: configuration.serverName, signingKeys: signingKeys,
            transport: configuration.federation.enabled ? transport : NoFederation(), health: health)
        let notifier = Notifier()
        self.notifier = notifier
        let ephemeral = EphemeralSerial()
        let typing = Typing(database: database, notifier: notifier, surroundings: surroundings, serial: ephemeral)
        let rooms = RoomRegistry(
            context: context, policies: PolicyServers(client: client, surroundings: surroundings, logger: logger),
            typing: typing)
        let keys = ServerKeyRing(
            database: database, client: client, surroundings: surroundings,
            notaries: configuration.federation.keyServers)
        let intake = EventIntake(keys: keys)
        let federated = try await FederatedRooms(rooms: rooms)
        policySigning = try await PolicySigning(configuration.policyServer, rooms: federated, logger: logger)
        rooms.policies.connect(policySigning)
        let missing = MissingEvents(rooms: federated, client: client, intake: intake, logger: logger)
        partialRooms = PartialRooms(federated: federated, missing: missing, notifier: notifier, logger: logger)
        let arrivals = Arrivals()
        let remoteMemberships = RemoteMemberships(
            federated: federated, client: client, intake: intake, missing: missing, partialRooms: partialRooms,
            arrivals: arrivals,
            partialFrom: configuration.federation.partialFrom, logger: logger)
        let sender = try await FederationSender(rooms: rooms, client: client, logger: logger)
        let ephemera = OutgoingEphemera()
        if configuration.federation.enabled { ephemera.connect(federated, sender) }
        let shared = SharedEphemera(rooms: rooms, typing: typing, ephemera: ephemera, logger: logger)
        sharedEphemera = shared
        let remoteDevices = RemoteDevices(database: database, client: client, surroundings: surroundings)
        let passwords = BlockingPool(threads: 2, most: 200)
        let disk = BlockingPool(threads: 2, most: 1_000)
        let pictures = BlockingPool(threads: 2, most: 100)
        pools = [passwords, disk, pictures]

        rateLimits = RateLimiter(isEnabled: configuration.rateLimits.enabled, surroundings: surroundings)
        accounts = AccountService(
            database: database, serverName: configuration.serverName,
            settings: configuration.registration, appservices: appservices, surroundings: surroundings,
            passwords: passwords, rateLimits: rateLimits)
        lastSeen = LastSeen(database: database, surroundings: surroundings)
        guard let version = RoomVersion.named(configuration.defaultRoomVersion) else {
            throw DatabaseError.unusable(
                "default_room_version: there is no room version \(configuration.defaultRoomVersion).")
        }
        let succession = RoomSuccession(rooms: rooms, pushRules: pushRules)
        memberships = MembershipService(rooms: rooms, succession: succession, remote: remoteMemberships)
        deactivation = DeactivationService(accounts: accounts, memberships: memberships)
        devices = DeviceService(accounts: accounts, deactivation: deactivation)
        profiles = ProfileService(rooms: rooms, client: client)
        accountData = AccountDataService(rooms: rooms, pushRules: pushRules)
        userDirectory = UserDirectoryService(database: database, ignored: ignored)
        creation = RoomCreationService(
            rooms: rooms, memberships: memberships, succession: succession, defaultVersion: version)
        reading = RoomReading(rooms: rooms, missing: missing, partialRooms: partialRooms)
        directory = DirectoryService(rooms: rooms, client: client)
        sending = SendingService(rooms: rooms, directory: directory)
        spaces = SpaceHierarchy(
            directory: directory, remote: RemoteSpaces(client: client, surroundings: surroundings))
        indexing = SearchIndexing(rooms: rooms, node: node, logger: logger)
        search = SearchService(reading: reading, directory: directory, indexing: indexing)
        pushers = PusherService(database: database, surroundings: surroundings)
        reports = ReportService(rooms: rooms)
        presence = PresenceService(
            database: database, notifier: notifier, surroundings: surroundings, serial: ephemeral,
            isEnabled: configuration.presence.enabled, ephemera: ephemera, logger: logger)
        receipts = ReceiptService(rooms: rooms, typing: typing, ephemera: ephemera)
        let activity = Activity(position: database.committedPosition)
        let unread = UnreadCounts(context: context, pushRules: pushRules)
        notificationList = NotificationList(
            rooms: rooms, unread: unread, pushRules: pushRules, activity: activity)
        deviceKeys = DeviceKeyService(
            database: database, serverName: configuration.serverName, remoteDevices: remoteDevices)
        crossSigning = CrossSigningService(
            database: database, serverName: configuration.serverName, devices: devices)
        deviceLists = DeviceListService(rooms: rooms, activity: activity)
        toDevice = ToDeviceService(
            database: database, serverName: configuration.serverName, surroundings: surroundings)
        keyBackups = KeyBackupService(database: database)
        dehydratedDevices = DehydratedDeviceService(
            database: database, toDevice: toDevice, surroundings: surroundings)
        sync = SyncService(
            rooms: rooms, pushRules: pushRules, unread: unread, presence: presence, serial: ephemeral,
            notifier: notifier, typing: typing,
            activity: activity,
            devices: DeviceSync(
                database: database, activity: activity, keys: deviceKeys, toDevice: toDevice, lists: deviceLists),
            epoch: try await identity.epoch(),
            run: Hex.encode(surroundings.randomBytes(4)), logger: logger)
        threadSubscriptions = ThreadSubscriptionService(rooms: rooms)
        slidingSync = SlidingSyncService(sync: sync)
        previews = RoomPreviews(reading: reading, sync: sync, directory: directory)
        filters = FilterService(database: database)
        media = try MediaService(
            database: database, serverName: configuration.serverName, surroundings: surroundings,
            settings: configuration.media, notifier: notifier, disk: disk, pictures: pictures,
            client: client)
        mediaPurging = RemoteMediaPurging(
            database: database, store: media.store, disk: disk, surroundings: surroundings, node: node,
            keepFor: configuration.media.keepRemote.map { Int64($0) * 1_000 }, logger: logger)
        purging = PurgeService(rooms: rooms)
        delayedEvents = DelayedEventService(rooms: rooms, rateLimits: rateLimits, node: node, logger: logger)
        redactions = RedactionJob(rooms: rooms, node: node, logger: logger)
        forgetting = TransactionForgetting(
            database: database, surroundings: surroundings, node: node, logger: logger)
        fillings = BackgroundFilling.all(rooms: rooms, node: node)
        self.logger = logger
        let serving = EventServing(federated: federated, reading: reading)
        federation = FederationService(
            rooms: federated, client: client, keys: keys, sender: sender,
            inbox: FederationInbox(
                rooms: federated, intake: intake, missing: missing, remote: remoteMemberships,
                edus: EDUInbox(
                    rooms: federated, typing: typing, presence: presence, toDevice: toDevice,
                    remoteDevices: remoteDevices, logger: logger), logger: logger),
            events: serving,
            memberships: MembershipServing(
                federated: federated, serving: serving, intake: intake, memberships: memberships,
                remote: remoteMemberships),
            thirdPartyInvites: ThirdPartyInvites(federated: federated, remote: remoteMemberships, logger: logger),
            deviceKeys: deviceKeys, isEnabled: configuration.federation.enabled)
        maintenance = MaintenanceService(
            database: database, configuration: configuration, surroundings: surroundings, logger: logger)
        engine.onCommit(
            CommitObserver { [pushRules, presence, indexing, toDevice] commit in
                activity.note(commit.topics, at: commit.position)
                toDevice.note(commit.topics, at: commit.position)
                pushRules.note(commit.topics)
                judge.watchers.note(commit.topics)
                unread.note(commit.topics)
                ignored.note(commit.topics)
                if !commit.isElsewhere { indexing.note(commit.topics) }
                if commit.isElsewhere { presence.note(commit.topics) }
                context.erasures.outdate(commit.topics)
                if commit.isElsewhere { rooms.outdate(commit.topics) }
                if commit.isElsewhere, commit.topics.contains(.everything) {
                    Task {
                        do { try await signingKeys.reload() } catch {
                            logger.error("the signing key can't be read", metadata: ["reason": "\(error)"])
                        }
                    }
                }
            } wake: { [federation] commit in
                notifier.publish(commit.topics)
                federation.note(commit)
                shared.note(commit)
            })
        // What was committed before anybody listened.
        activity.forget(before: database.committedPosition)
    }

    /// Begins what a server does by itself: work that was interrupted, and work that comes due.
    public func startJobs() async throws {
        try await purging.goOn()
        redactions.start()
        forgetting.start()
        mediaPurging.start()
        sharedEphemera.start()
        try await federation.start()
        try await partialRooms.start { [federation] in federation.roomIsWhole($0) }
        indexing.start()
        try await delayedEvents.start()
        filling.withLock { filling in
            filling = Task { [fillings, surroundings, logger] in
                await BackgroundFilling.runAll(fillings, surroundings, logger)
            }
        }
    }

    /// Whether anybody has an account yet.
    public func hasAccounts() async throws -> Bool { try await !database.accounts().isEmpty }

    /// Has waiting syncs answer at once, now and from now on: the server is about to stop.
    public func drain() { notifier.drain() }

    /// Finishes what was begun and closes the database. Nothing may be asked of the server afterwards.
    public func close() async {
        redactions.stop()
        forgetting.stop()
        mediaPurging.stop()
        partialRooms.stop()
        await sharedEphemera.stop()
        await federation.stop()
        await indexing.close()
        delayedEvents.stop()
        await presence.close()
        let filling = filling.withLock { $0.take() }
        filling?.cancel()
        await filling?.value
        for pool in pools { await pool.close() }
        await database.close()
    }
}
