"""The three clients, and what a journey says of what it sees."""

import urllib.parse

import aiohttp
import nio
from mautrix.client import Client

CLIENT = "/_matrix/client/v3"
CLIENT_V1 = "/_matrix/client/v1"


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def same(seen, expected, what):
    check(seen == expected, f"{what}: {seen!r} instead of {expected!r}")


def good(response, kind):
    check(isinstance(response, kind), f"{kind.__name__} expected, got {response!r}")
    return response


def quoted(text):
    return urllib.parse.quote(text, safe="")


class Person:
    """What the libraries don't know is asked in plain HTTP, with the token of their client."""

    def __init__(self, url, name, session):
        self.url = url
        self.name = name
        self.user = f"@{name}:localhost"
        self.session = session

    @property
    def token(self):
        raise NotImplementedError

    async def ask(self, method, path, body=None, status=200, code=None, token=True, **query):
        """Asks, expects a status and an error code, and answers the JSON."""
        headers = {"Authorization": f"Bearer {self.token if token is True else token}"} if token else {}
        if body is None and method != "GET":
            body = {}
        query = {name: str(value) for name, value in query.items() if value is not None}
        async with self.session.request(
                method, self.url + path, json=body if method != "GET" else None, params=query, headers=headers) as answer:
            content = await answer.json(content_type=None)
            check(answer.status == status, f"{method} {path} answers {answer.status} {content}, not {status}")
            if code:
                same(content.get("errcode"), code, f"{method} {path}")
            return content

    async def with_password(self, method, path, body=None, password=None):
        """Asks for what must be confirmed with the password (user-interactive authentication)."""
        asked = await self.ask(method, path, body, status=401)
        check(any(flow["stages"] == ["m.login.password"] for flow in asked["flows"]), f"no flow with a password: {asked}")
        identifier = {"type": "m.id.user", "user": self.name}
        auth = {"type": "m.login.password", "session": asked["session"], "identifier": identifier, "password": password}
        return await self.ask(method, path, {**(body or {}), "auth": auth})


class NioPerson(Person):
    def __init__(self, url, name, session):
        super().__init__(url, name, session)
        self.client = nio.AsyncClient(url, name)
        self.since = None

    @property
    def token(self):
        return self.client.access_token

    async def register(self, password):
        response = good(await self.client.register(self.name, password, "journey"), nio.RegisterResponse)
        same(response.user_id, self.user, "the registered user")

    async def log_in(self, password):
        self.since = None
        good(await self.client.login(password, "journey again"), nio.LoginResponse)

    async def sync(self, timeout=0, **options):
        response = good(await self.client.sync(timeout=timeout, since=self.since, **options), nio.SyncResponse)
        self.since = response.next_batch
        return response

    async def say(self, room, content, kind="m.room.message"):
        if isinstance(content, str):
            content = {"msgtype": "m.text", "body": content}
        return good(await self.client.room_send(room, kind, content), nio.RoomSendResponse).event_id

    async def bodies(self, room, limit=50):
        """The texts that the person sees in a room, oldest first."""
        page = good(await self.client.room_messages(room, limit=limit), nio.RoomMessagesResponse)
        texts = [event.body for event in page.chunk if isinstance(event, nio.RoomMessageText)]
        return texts[::-1]


class MautrixPerson(Person):
    def __init__(self, url, name, session):
        super().__init__(url, name, session)
        self.client = Client(mxid=self.user, base_url=url, client_session=session)

    @property
    def token(self):
        return self.client.api.token

    async def register(self, password):
        answer = await self.ask(
            "POST", f"{CLIENT}/register",
            {"username": self.name, "password": password, "auth": {"type": "m.login.dummy"}}, token=None)
        same(answer["user_id"], self.user, "the registered user")
        self.client.api.token = answer["access_token"]
        self.client.device_id = answer["device_id"]

    async def log_in(self, password):
        answer = await self.client.login(identifier=self.name, password=password, device_name="journey")
        same(answer.user_id, self.user, "the user who signed in")


class People:
    """Alice and Bob with matrix-nio, Carol with mautrix."""

    def __init__(self, url):
        self.session = aiohttp.ClientSession()
        self.alice = NioPerson(url, "alice", self.session)
        self.bob = NioPerson(url, "bob", self.session)
        self.carol = MautrixPerson(url, "carol", self.session)
        self.url = url

    async def __aenter__(self):
        return self

    async def __aexit__(self, kind, error, trace):
        await self.alice.client.close()
        await self.bob.client.close()
        await self.session.close()
