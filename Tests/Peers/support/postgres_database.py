"""A PostgreSQL database of its own for a test, in the cluster at ROOST_TEST_POSTGRES; and a client for the Matrix API, both
with nothing but the standard library."""

import http.client
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import urllib.parse


def psql_binary():
    found = shutil.which("psql")
    if found:
        return found
    return str(sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/psql"))[-1])


def sql(url, statement):
    """Runs a statement and answers its rows as lists of texts."""
    done = subprocess.run(
        [psql_binary(), "--no-psqlrc", "--tuples-only", "--no-align", "--field-separator=\t", url, "-c", statement],
        capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return [line.split("\t") for line in done.stdout.splitlines() if line]


class PostgresDatabase:
    def __init__(self, cluster=None):
        self.cluster = cluster or os.environ["ROOST_TEST_POSTGRES"]
        self.name = "roost_" + secrets.token_hex(6)
        self.url = self.cluster.rsplit("/", 1)[0] + "/" + self.name

    def __enter__(self):
        sql(self.cluster, f"CREATE DATABASE {self.name}")
        return self

    def __exit__(self, kind, error, trace):
        sql(self.cluster, f"DROP DATABASE {self.name} WITH (FORCE)")

    def sql(self, statement):
        return sql(self.url, statement)


class Failed(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body


class Client:
    """One user's client of one server. Not for several threads at once."""

    def __init__(self, url, token=None, user=None):
        self.address = urllib.parse.urlparse(url).netloc
        self.token = token
        self.user = user
        self.connection = None

    def ask(self, method, path, body=None, timeout=40):
        if self.connection is None:
            self.connection = http.client.HTTPConnection(self.address, timeout=timeout)
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = "Bearer " + self.token
        try:
            self.connection.request(method, path, json.dumps({} if body is None and method != "GET" else body)
                                    if method != "GET" else None, headers)
            answer = self.connection.getresponse()
            content = json.loads(answer.read() or b"{}")
        except (OSError, http.client.HTTPException):
            self.connection.close()
            self.connection = None
            raise
        if answer.status != 200:
            raise Failed(answer.status, content)
        return content

    def register(self, name):
        answer = self.ask("POST", "/_matrix/client/v3/register",
                          {"username": name, "password": "secret", "auth": {"type": "m.login.dummy"}})
        self.token, self.user = answer["access_token"], answer["user_id"]
        return self

    def log_in(self, name):
        answer = self.ask("POST", "/_matrix/client/v3/login",
                          {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": name},
                           "password": "secret"})
        self.token, self.user = answer["access_token"], answer["user_id"]
        return self

    def at(self, url):
        """The same session on another node."""
        return Client(url, self.token, self.user)

    def create_room(self, **options):
        return self.ask("POST", "/_matrix/client/v3/createRoom", {"preset": "public_chat", **options})["room_id"]

    def join(self, room):
        return self.ask("POST", f"/_matrix/client/v3/join/{urllib.parse.quote(room)}")

    def say(self, room, text, transaction=None):
        transaction = transaction or secrets.token_hex(8)
        path = f"/_matrix/client/v3/rooms/{urllib.parse.quote(room)}/send/m.room.message/{transaction}"
        return self.ask("PUT", path, {"msgtype": "m.text", "body": text})["event_id"]

    def sync(self, since=None, timeout=0):
        path = f"/_matrix/client/v3/sync?timeout={timeout}"
        if since:
            path += "&since=" + urllib.parse.quote(since)
        return self.ask("GET", path)

    def history(self, room):
        """All messages that the user may see, oldest first, as (event ID, body)."""
        found, start = [], None
        while True:
            path = f"/_matrix/client/v3/rooms/{urllib.parse.quote(room)}/messages?dir=b&limit=100"
            if start:
                path += "&from=" + urllib.parse.quote(start)
            page = self.ask("GET", path)
            found += [(event["event_id"], event["content"]["body"]) for event in page["chunk"]
                      if event["type"] == "m.room.message" and "body" in event["content"]]
            start = page.get("end")
            if not start:
                return list(reversed(found))


def messages(answer, room):
    """The bodies of the messages that a sync brings of a room."""
    timeline = answer.get("rooms", {}).get("join", {}).get(room, {}).get("timeline", {}).get("events", [])
    return [event["content"].get("body") for event in timeline if event["type"] == "m.room.message"]
