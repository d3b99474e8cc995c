"""Roost and Synapse as equals in rooms: joins, messages, invitations, knocks, removals, state, redactions, history, what passes, aliases,
profiles, media; and one of them away for a while."""

import json
import pathlib
import secrets
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))

from authority import Authority  # noqa: E402
from federated_person import Person, check, eventually, quote, versions  # noqa: E402
from federating import FederatingRoost, Synapse  # noqa: E402
from postgres_database import Failed  # noqa: E402


def conversation(here, there, version, name):
    """A room made by `here`, joined by `there`: both talk, change state, redact."""
    room = here.create_room(room_version=version, name=name)
    early = here.say(room, "early")
    there.join_via(room, here.server)
    check(there.state(room, "m.room.name")["name"] == name, "who joins sees the room's state at once")
    said = [here.say(room, "one"), there.say(room, "two"), here.say(room, "three")]
    for person in (here, there):
        eventually(f"{person.user} reads everything in version {version}",
                   lambda: {"early", "one", "two", "three"} <= set(person.bodies(room)))
    here.set_state(room, "m.room.topic", {"topic": "of one"})
    eventually("state crosses", lambda: there.state(room, "m.room.topic")["topic"] == "of one")
    here.set_state(room, "m.room.power_levels", {**here.state(room, "m.room.power_levels"), "state_default": 0, "events": {}})
    eventually("levels cross", lambda: there.state(room, "m.room.power_levels").get("state_default") == 0)
    there.set_state(room, "org.example.with.dots/and slash", {"kept": True}, "key/with ü")
    eventually("state with odd names crosses back",
               lambda: here.state(room, "org.example.with.dots/and slash", "key/with ü")["kept"])
    here.ask("PUT", here.room(room, f"redact/{quote(said[0])}/{secrets.token_hex(4)}"), {})
    eventually("a redaction crosses", lambda: there.event(room, said[0])["content"] == {})
    return room, early


def removals(here, there):
    room = here.create_room()
    there.join_via(room, here.server)
    eventually("the join is seen", lambda: here.membership(room, there.user) == "join")
    here.act(room, "kick", there.user)
    eventually("who was kicked hears of it", lambda: room in there.synced().get("rooms", {}).get("leave", {})
               or room not in there.ask("GET", "/_matrix/client/v3/joined_rooms")["joined_rooms"])
    there.join_via(room, here.server)
    here.act(room, "ban", there.user)
    eventually("the ban holds", lambda: room not in there.ask("GET", "/_matrix/client/v3/joined_rooms")["joined_rooms"])
    try:
        there.join_via(room, here.server)
        check(False, "a banned user gets in")
    except Failed as failure:
        check(failure.status == 403, f"a banned user is refused clearly: {failure}")
    here.act(room, "unban", there.user)
    eventually("who was unbanned gets in again", lambda: there.join_via(room, here.server))
    there.ask("POST", there.room(room, "leave"))
    eventually("a leave crosses", lambda: here.membership(room, there.user) == "leave")


def invitations(here, there):
    room = here.create_room(preset="private_chat", name="Private")
    here.act(room, "invite", there.user)

    def invited():
        invite = there.synced().get("rooms", {}).get("invite", {}).get(room)
        return invite and any(event["type"] == "m.room.name" and event["content"]["name"] == "Private"
                              for event in invite["invite_state"]["events"])
    eventually("the invitation comes with the room's name", invited)
    there.join_via(room, here.server)
    there.say(room, "thanks")
    eventually("the invited talk", lambda: "thanks" in here.bodies(room))
    second = here.create_room(preset="private_chat", invite=[there.user])
    eventually("an invitation at creation comes", lambda: second in there.synced().get("rooms", {}).get("invite", {}))
    there.ask("POST", there.room(second, "leave"))
    eventually("a rejection crosses", lambda: here.membership(second, there.user) == "leave")


def knocks(here, there):
    room = here.create_room(preset="private_chat", initial_state=[
        {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}])
    there.ask("POST", f"/_matrix/client/v3/knock/{quote(room)}?via={quote(here.server)}&server_name={quote(here.server)}")
    eventually("the knock is heard", lambda: here.membership(room, there.user) == "knock")
    here.act(room, "invite", there.user)
    eventually("the door opens", lambda: there.join_via(room, here.server))


def restricted(here, there):
    club = here.create_room()
    room = here.create_room(preset="private_chat", initial_state=[
        {"type": "m.room.join_rules", "state_key": "", "content": {
            "join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": club}]}}])
    try:
        there.join_via(room, here.server)
        check(False, "somebody who is in none of the rooms gets in")
    except Failed as failure:
        check(failure.status == 403, f"refused clearly: {failure}")
    there.join_via(club, here.server)
    there.join_via(room, here.server)
    there.say(room, "let in")
    eventually("the member of the other room talks", lambda: "let in" in here.bodies(room))


def history(here, there):
    """Old history is fetched on going back."""
    room = here.create_room()
    for number in range(60):
        here.say(room, str(number))
    there.join_via(room, here.server)
    eventually("history from before the join is there", lambda: there.bodies(room) == [str(n) for n in range(60)], 40)


def passing(here, there):
    """Typing, receipts and presence."""
    room = here.create_room()
    there.join_via(room, here.server)
    said = here.say(room, "read me")
    eventually("the message is there", lambda: "read me" in there.bodies(room))
    here.ask("PUT", here.room(room, f"typing/{quote(here.user)}"), {"typing": True, "timeout": 30000})

    def ephemeral(person, kind):
        found = person.synced()["rooms"]["join"].get(room, {}).get("ephemeral", {}).get("events", [])
        return [event["content"] for event in found if event["type"] == kind]
    eventually("typing crosses", lambda: any(here.user in c["user_ids"] for c in ephemeral(there, "m.typing")))
    there.ask("POST", there.room(room, f"receipt/m.read/{quote(said)}"), {})
    eventually("a receipt crosses",
               lambda: any(there.user in c.get(said, {}).get("m.read", {}) for c in ephemeral(here, "m.receipt")))
    here.ask("PUT", f"/_matrix/client/v3/presence/{quote(here.user)}/status",
             {"presence": "online", "status_msg": "about"})
    eventually("presence crosses", lambda: any(
        event["sender"] == here.user and event["content"].get("status_msg") == "about"
        for event in there.synced().get("presence", {}).get("events", [])), 30)


def directory(here, there):
    alias = f"#{secrets.token_hex(4)}:{here.server}"
    room = here.create_room(room_alias_name=alias[1:].split(":")[0], visibility="public", name="Listed")
    found = there.ask("GET", f"/_matrix/client/v3/directory/room/{quote(alias)}")
    check(found["room_id"] == room, "an alias is found")
    there.ask("POST", f"/_matrix/client/v3/join/{quote(alias)}")
    check(there.state(room, "m.room.name")["name"] == "Listed", "a room is joined by its alias")
    listed = there.ask("GET", f"/_matrix/client/v3/publicRooms?server={quote(here.server)}")
    check(room in [entry["room_id"] for entry in listed["chunk"]], f"published rooms are listed elsewhere: {listed}")
    here.ask("PUT", f"/_matrix/client/v3/profile/{quote(here.user)}/displayname", {"displayname": "Somebody"})
    eventually("a profile is asked for elsewhere", lambda: there.ask(
        "GET", f"/_matrix/client/v3/profile/{quote(here.user)}").get("displayname") == "Somebody")


def media(here, there):
    """A file with its type and name; a thumbnail of a picture."""
    import http.client
    content = secrets.token_bytes(300_000) + b"\r\n--boundary--\r\n"

    def raw(person, method, path, body=None, headers=()):
        connection = http.client.HTTPConnection(person.address, timeout=40)
        connection.request(method, path, body, {"Authorization": "Bearer " + person.token, **dict(headers)})
        answer = connection.getresponse()
        found = answer.read()
        check(answer.status == 200, f"{path}: {answer.status} {found[:300]}")
        return answer, found
    _, answer = raw(here, "POST", "/_matrix/media/v3/upload?filename=odd%20%C3%BC.bin", content, {"Content-Type": "application/x-odd"})
    uri = json.loads(answer)["content_uri"].removeprefix("mxc://")
    answer, found = raw(there, "GET", f"/_matrix/client/v1/media/download/{uri}")
    check(found == content, "a file arrives as it was")
    check(answer.getheader("Content-Type") == "application/x-odd", "its type is kept")
    check("%C3%BC" in answer.getheader("Content-Disposition"), f"its name is kept: {answer.getheader('Content-Disposition')}")


def spaces(here, there):
    """A space of one server with rooms of both is walked from the other."""
    inner = here.create_room(name="Inner")
    own = there.create_room(name="Own")
    space = here.create_room(name="Space", creation_content={"type": "m.space"})
    below = here.create_room(name="Below", creation_content={"type": "m.space"})
    for parent, child, server in ((space, below, here.server), (space, own, there.server), (below, inner, here.server)):
        here.set_state(parent, "m.space.child", {"via": [server]}, child)
    there.join_via(space, here.server)

    def walked():
        found = there.ask("GET", f"/_matrix/client/v1/rooms/{quote(space)}/hierarchy")["rooms"]
        return {room["room_id"] for room in found} == {space, below, inner, own} and found
    eventually("the whole hierarchy is seen from the other server", walked)


def both_ways(what, one, other):
    for here, there in ((one, other), (other, one)):
        started = time.monotonic()
        what(here, there)
        print(f"{what.__name__}: {here.label} to {there.label}: {time.monotonic() - started:.1f} s", flush=True)


def away(one, other, servers):
    """Each server is away for a while, and catches up with what was said."""
    for present, absent, end in ((one, other, "stop"), (other, one, "stop"), (other, one, "kill")):
        room = present.create_room()
        absent.join_via(room, present.server)
        present.say(room, "before")
        eventually("both are there", lambda: "before" in absent.bodies(room))
        getattr(servers[absent.label], end)()
        for number in range(15):
            present.say(room, f"meanwhile {number}")
        time.sleep(2)
        absent.connection = None
        servers[absent.label].start()
        started = time.monotonic()
        expected = ["before"] + [f"meanwhile {number}" for number in range(15)]
        eventually(f"{absent.label} catches up", lambda: absent.bodies(room) == expected, 60)
        took = time.monotonic() - started
        absent.say(room, "back")
        eventually("the other way, too", lambda: "back" in present.bodies(room), 60)
        print(f"away: {absent.label} ({end}) caught up after {took:.1f} s", flush=True)


def main():
    only = sys.argv[1:]
    with tempfile.TemporaryDirectory() as place:
        authority = Authority(place)
        with FederatingRoost(authority, "roost") as roost, Synapse(authority) as synapse:
            one = Person(roost.url).register("alice")
            other = Person(synapse.url).register("bob")
            one.server, one.label = roost.name, "Roost"
            other.server, other.label = synapse.name, "Synapse"
            if not only or "conversation" in only:
                for version in versions(one, other):
                    for here, there in ((one, other), (other, one)):
                        conversation(here, there, version, f"Room of version {version}")
                    print(f"conversation: version {version}, both ways", flush=True)
            for what in (removals, invitations, knocks, restricted, history, passing, directory, media, spaces):
                if not only or what.__name__ in only:
                    both_ways(what, one, other)
            if not only or "away" in only:
                away(one, other, {"Roost": roost, "Synapse": synapse})
            check("crashed" not in roost.whole_log() and " 500" not in roost.whole_log(), "nothing went wrong unseen")
    print("Roost and Synapse: all as it should be")


main()
