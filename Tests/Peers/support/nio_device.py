"""Devices of people who talk in secret, with matrix-nio."""

import tempfile

import nio


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def good(response, kind):
    check(isinstance(response, kind), f"{kind.__name__} expected, got {response!r}")
    return response


class Device:
    """A client with a store of its own, which does after each sync what its keys need."""

    def __init__(self, url, user, device_id):
        self.store = tempfile.TemporaryDirectory(prefix="roost-nio-")
        self.client = nio.AsyncClient(
            url, user, device_id=device_id, store_path=self.store.name,
            config=nio.AsyncClientConfig(encryption_enabled=True, store_sync_tokens=False))
        self.read, self.unread, self.requests, self.events = {}, [], [], []
        self.client.add_event_callback(self.take, (nio.RoomMessageText, nio.RoomEncryptedImage))
        self.client.add_event_callback(lambda room, event: self.unread.append(event), nio.MegolmEvent)
        self.client.add_to_device_callback(self.requests.append, nio.RoomKeyRequest)
        self.client.add_to_device_callback(self.events.append, nio.KeyVerificationEvent)

    def take(self, room, event):
        check(event.decrypted, f"{event.body} was not encrypted")
        self.read[event.body] = event

    async def log_in(self, password):
        good(await self.client.login(password), nio.LoginResponse)

    async def settle(self):
        """Syncs until there is nothing left to do, as sync_forever does in its rounds."""
        client = self.client
        for _ in range(6):
            good(await client.sync(timeout=0, full_state=client.next_batch == ""), nio.SyncResponse)
            await client.send_to_device_messages()
            if client.should_upload_keys:
                good(await client.keys_upload(), nio.KeysUploadResponse)
            if client.should_query_keys:
                good(await client.keys_query(), nio.KeysQueryResponse)
            if client.should_claim_keys:
                good(await client.keys_claim(client.get_users_for_key_claiming()), nio.KeysClaimResponse)
            await client.send_to_device_messages()

    async def say(self, room, text):
        response = good(
            await self.client.room_send(
                room, "m.room.message", {"msgtype": "m.text", "body": text}, ignore_unverified_devices=True),
            nio.RoomSendResponse)
        return response.event_id

    async def session_of(self, room, event_id):
        """The name of the session that an event was encrypted with, as the server has it."""
        event = good(await self.client.room_get_event(room, event_id), nio.RoomGetEventResponse).event
        return event.source["content"]["session_id"] if isinstance(event, nio.MegolmEvent) else event.session_id

    async def close(self):
        await self.client.close()
        self.store.cleanup()


async def settle(*devices):
    for _ in range(2):
        for device in devices:
            await device.settle()


async def verify(first, second):
    """Two devices verify each other by emoji, each telling the other what it sees."""
    other = first.client.device_store[second.client.user_id][second.client.device_id]
    good(await first.client.start_key_verification(other), nio.ToDeviceResponse)
    await settle(second)
    start = next(event for event in second.events if isinstance(event, nio.KeyVerificationStart))
    good(await second.client.accept_key_verification(start.transaction_id), nio.ToDeviceResponse)
    await settle(first, second)
    seen = [device.client.key_verifications[start.transaction_id].get_emoji() for device in (first, second)]
    check(seen[0] == seen[1] and len(seen[0]) == 7, f"the emoji differ: {seen}")
    for device in (first, second):
        good(await device.client.confirm_short_auth_string(start.transaction_id), nio.ToDeviceResponse)
    await settle(first, second)
    for device, peer in ((first, second), (second, first)):
        check(device.client.key_verifications[start.transaction_id].verified, "a verification is not finished")
        stored = device.client.device_store[peer.client.user_id][peer.client.device_id]
        check(device.client.olm.is_device_verified(stored), "a verified device is not marked so")
