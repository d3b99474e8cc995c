"""People of servers that speak with one another: their clients, and waiting for what takes its time between servers."""

import secrets
import time
import urllib.parse

from postgres_database import Client, Failed


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def quote(text):
    return urllib.parse.quote(text, safe="")


def eventually(what, holds, seconds=20):
    end = time.monotonic() + seconds
    last = None
    while time.monotonic() < end:
        try:
            last = holds()
            if last:
                return last
        except Failed as failure:
            last = failure
        time.sleep(0.1)
    raise AssertionError(f"{what}; last: {str(last)[:500]}")


class Person(Client):
    """A client with the calls of this test."""

    def room(self, room, rest):
        return f"/_matrix/client/v3/rooms/{quote(room)}/{rest}"

    def join_via(self, room, server):
        return self.ask("POST", f"/_matrix/client/v3/join/{quote(room)}?via={quote(server)}&server_name={quote(server)}")

    def state(self, room, kind, key=""):
        return self.ask("GET", self.room(room, f"state/{quote(kind)}/{quote(key)}"))

    def set_state(self, room, kind, content, key=""):
        return self.ask("PUT", self.room(room, f"state/{quote(kind)}/{quote(key)}"), content)["event_id"]

    def membership(self, room, user):
        try:
            return self.state(room, "m.room.member", user)["membership"]
        except Failed as failure:
            return None if failure.status in (403, 404) else str(failure)

    def bodies(self, room):
        return [body for _, body in self.history(room)]

    def act(self, room, what, user):
        return self.ask("POST", self.room(room, what), {"user_id": user})

    def event(self, room, event):
        return self.ask("GET", self.room(room, f"event/{quote(event)}"))

    def synced(self):
        # Synapse remembers answers for a while; a time that means nothing makes another question of it.
        return self.ask("GET", f"/_matrix/client/v3/sync?timeout={secrets.randbelow(10000)}")


def versions(one, other):
    """The room versions that both know."""
    def of(person):
        return set(person.ask("GET", "/_matrix/client/v3/capabilities")["capabilities"]["m.room_versions"]["available"])
    return sorted(of(one) & of(other), key=int)


def person(server, name):
    """A new account on a server of the test."""
    someone = Person(server.url).register(name)
    someone.server = server.name
    return someone


def everybody_reads(room, texts, people):
    """Waits until each has all of the texts."""
    for someone in people:
        eventually(f"{someone.user} reads all of {texts}", lambda: set(texts) <= set(someone.bodies(room)), 30)
