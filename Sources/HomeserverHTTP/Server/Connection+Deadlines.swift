import Homeserver
import NIOCore

/// What a client may take its time for, and how long: one timer for each connection, which looks what it is for when it fires.
extension Connection: NIOScheduledCallbackHandler {
    private var deadline: NIODeadline? {
        switch phase {
        case .idle:
            if let stalledSince { return stalledSince + server.limits.write }
            if isStream { return nil }
            return idleSince + (isFirstRequest ? server.limits.firstRequest : server.limits.idle)
        case .buffering, .discarding:
            return bodyDeadline
        case .answering(let exchange):
            if let stalledSince { return stalledSince + server.limits.write }
            let isArriving = !exchange.isBodyComplete && !exchange.isBodyBroken
            return isArriving && exchange.pausedSince == nil && !exchange.owesContinue ? bodyDeadline : nil
        case .lingering:
            return lingerUntil
        case .closed:
            return streamEndsBy
        }
    }

    /// A body has its grace and then must come at the least rate; a byte now and then doesn't keep a connection open.
    private var bodyDeadline: NIODeadline {
        bodySince + server.limits.bodyGrace + .seconds(Int64(bodyReceived / server.limits.bodyBytesPerSecond))
    }

    /// Makes sure the timer fires no later than the deadline; firing earlier costs nothing but another look.
    func updateTimer() {
        guard let deadline, timer == nil || deadline < timerAt else { return }
        timer?.cancel()
        timerAt = deadline
        timer = try? executor.loop.scheduleCallback(at: deadline, handler: self)
    }

    func handleScheduledCallback(eventLoop: some EventLoop) {
        timer = nil
        guard let deadline else { return }
        guard deadline <= .now() else { return updateTimer() }
        let tooSlow = MatrixError(.unknown, "The body of the request came too slowly.", status: 408)
        switch phase {
        case .buffering: refuse(tooSlow)
        case .answering(let exchange) where stalledSince == nil: breakBody(of: exchange, tooSlow)
        case .idle, .answering, .discarding, .lingering, .closed: context?.close(promise: nil)
        }
    }
}
