import Database
import MatrixCore

/// The events of a draft in their order, found by ID and number, too: a whole room may come at once.
struct AddedEvents: RandomAccessCollection, MutableCollection {
    private var list: [RoomDraft.Added] = []
    private var byID: [EventID: Int] = [:]
    private var byNumber: [EventNID: Int] = [:]

    var startIndex: Int { 0 }
    var endIndex: Int { list.count }

    /// An event may be replaced by another form of it, which has the same number.
    subscript(index: Int) -> RoomDraft.Added {
        get { list[index] }
        set {
            byID[list[index].event.eventID] = nil
            list[index] = newValue
            note(index)
        }
    }

    mutating func append(_ added: RoomDraft.Added) {
        list.append(added)
        note(list.count - 1)
    }

    mutating func popLast() -> RoomDraft.Added? {
        guard let last = list.popLast() else { return nil }
        byID[last.event.eventID] = nil
        byNumber[last.event.nid] = nil
        return last
    }

    private mutating func note(_ index: Int) {
        byID[list[index].event.eventID] = index
        byNumber[list[index].event.nid] = index
    }

    func index(of id: EventID) -> Int? { byID[id] }

    subscript(id: EventID) -> RoomDraft.Added? { byID[id].map { list[$0] } }
    subscript(nid: EventNID) -> RoomDraft.Added? { byNumber[nid].map { list[$0] } }
}
