"""Cross-signing and secret storage with mautrix: a user makes cross-signing keys and keeps them in secret storage; a second device
signs itself with the recovery key alone; a bot of somebody else's sees both devices as signed by their owner."""

import asyncio
import logging
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))

import aiohttp  # noqa: E402
from mautrix.client import Client  # noqa: E402
from mautrix.client.state_store import MemoryStateStore  # noqa: E402
from mautrix.crypto import MemoryCryptoStore, OlmMachine, StateStore  # noqa: E402
from mautrix.types import EventType, PresenceState, RoomCreatePreset, TOFUSigningKey, TrustState  # noqa: E402
from roost_server import Roost  # noqa: E402


def check(condition, what):
    if not condition:
        raise AssertionError(what)


class Rooms(MemoryStateStore, StateStore):
    """What the encryption asks of the state of rooms."""

    async def find_shared_rooms(self, user_id):
        return [room for room, members in self.members.items() if user_id in members]


class Store(MemoryCryptoStore):
    """The store in memory, but for putting a cross-signing key a second time, which fails in it."""

    async def put_cross_signing_key(self, user_id, usage, key):
        known = self._cross_signing_keys.setdefault(user_id, {})
        known[usage] = TOFUSigningKey(key=key, first=known[usage].first if usage in known else key)


class Device:
    async def log_in(self, url, name, device_id):
        async with aiohttp.ClientSession() as session:
            body = {
                "type": "m.login.password", "identifier": {"type": "m.id.user", "user": name}, "password": "secret",
                "device_id": device_id}
            async with session.post(f"{url}/_matrix/client/v3/login", json=body) as answer:
                login = await answer.json()
                check(answer.status == 200, f"login: {login}")
        self.client = Client(
            mxid=login["user_id"], device_id=device_id, base_url=url, token=login["access_token"],
            state_store=Rooms())
        self.machine = OlmMachine(self.client, Store(login["user_id"], "pickle"), self.client.state_store)
        self.client.crypto = self.machine
        await self.machine.load()
        await self.machine.share_keys(0)
        self.read = {}
        self.client.add_event_handler(EventType.ROOM_MESSAGE, self.take)
        self.since = None
        await self.sync()
        return self

    async def take(self, event):
        self.read[event.content.body] = event

    async def sync(self):
        answer = await self.client.sync(since=self.since, timeout=0, set_presence=PresenceState.OFFLINE)
        for task in self.client.handle_sync(answer):
            await task
        self.since = answer["next_batch"]
        check("device_unused_fallback_key_types" in answer, "a sync says nothing of fallback keys")

    async def wait_for(self, body):
        """Syncs until the message is read: the client decrypts in the background, after the sync that brought it has ended."""
        for _ in range(200):
            await self.sync()
            if body in self.read:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{self.client.device_id} can't read {body!r}")


async def run(server):
    async with aiohttp.ClientSession() as session:
        for name in ("alice", "bob"):
            body = {
                "username": name, "password": "secret", "inhibit_login": True, "auth": {"type": "m.login.dummy"}}
            async with session.post(f"{server.url}/_matrix/client/v3/register", json=body) as answer:
                check(answer.status == 200, f"register: {await answer.text()}")
    first = await Device().log_in(server.url, "alice", "ALICEONE")
    recovery_key = await first.machine.generate_recovery_key()
    public = await first.machine.get_own_cross_signing_public_keys()

    second = await Device().log_in(server.url, "alice", "ALICETWO")
    await second.machine.verify_with_recovery_key(recovery_key)
    check(
        await second.machine.get_own_cross_signing_public_keys() == public,
        "the keys from secret storage are others than those that were published")

    bob = await Device().log_in(server.url, "bob", "BOB")
    room = await first.client.create_room(
        preset=RoomCreatePreset.PRIVATE, invitees=["@bob:localhost"],
        initial_state=[{
            "type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}])
    await bob.client.join_room(room)
    for device in (first, second, bob):
        await device.sync()
    # Of other users' devices a stranger sees what their own keys say of them.
    keys = await bob.machine.get_cross_signing_public_keys("@alice:localhost")
    check(keys.master_key == public.master_key, "bob sees another master key")
    check(keys.user_signing_key is None, "bob sees alice's user-signing key")
    for device in (first, second):
        identity = await bob.machine.get_or_fetch_device("@alice:localhost", device.client.device_id)
        check(identity is not None, "bob doesn't see a device of alice's")
        trust = await bob.machine.resolve_trust(identity)
        check(trust >= TrustState.CROSS_SIGNED_UNTRUSTED, f"{device.client.device_id} is {trust} to bob")
    plain = await Device().log_in(server.url, "alice", "ALICETHREE")
    await bob.sync()
    identity = await bob.machine.get_or_fetch_device("@alice:localhost", plain.client.device_id)
    check(identity is not None, "bob doesn't see alice's third device")
    check(
        await bob.machine.resolve_trust(identity) == TrustState.UNVERIFIED, "an unsigned device counts as signed")

    # And they talk.
    await bob.client.send_text(room, "hello alice")
    for device in (first, second):
        await device.wait_for("hello alice")
    for device in (first, second, bob, plain):
        await device.client.api.session.close()


def main():
    logging.getLogger("mau").setLevel(logging.CRITICAL)
    with Roost("--open-registration") as server:
        asyncio.run(asyncio.wait_for(run(server), 120))
        check(server.stop() == 0, "the server does not stop with status 0")
    print("mautrix: devices were signed by keys from secret storage, and others see it")


main()
