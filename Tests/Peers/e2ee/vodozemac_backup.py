"""A small client made of vodozemac's primitives: two people compare short strings and sign each other's master keys, and a new
device restores a backup of room keys and reads what was said before it was there."""

import base64
import json
import pathlib
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))

import vodozemac  # noqa: E402
from roost_server import Roost  # noqa: E402

MEGOLM = "m.megolm.v1.aes-sha2"
BACKUP = "m.megolm_backup.v1.curve25519-aes-sha2"


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def canonical(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def signed(value, account, user, key_id):
    """The object with a signature by the key of an account (Appendices, "Signing JSON")."""
    plain = {name: member for name, member in value.items() if name not in ("signatures", "unsigned")}
    signatures = json.loads(json.dumps(value.get("signatures", {})))
    signatures.setdefault(user, {})[f"ed25519:{key_id}"] = account.sign(canonical(plain)).to_base64()
    return {**value, "signatures": signatures}


def is_signed(value, public_key, user, key_id):
    plain = {name: member for name, member in value.items() if name not in ("signatures", "unsigned")}
    text = value.get("signatures", {}).get(user, {}).get(f"ed25519:{key_id}")
    if text is None:
        return False
    vodozemac.Ed25519PublicKey.from_base64(public_key).verify_signature(
        canonical(plain), vodozemac.Ed25519Signature.from_base64(text))
    return True


class CrossSigning:
    """The three keys of a user. vodozemac signs with accounts, so each key is one's."""

    def __init__(self, user):
        self.user = user
        self.master, self.self_signing, self.user_signing = (vodozemac.Account() for _ in range(3))

    @staticmethod
    def public(account):
        return account.ed25519_key.to_base64()

    def key(self, usage, account):
        name = self.public(account)
        return {"user_id": self.user, "usage": [usage], "keys": {f"ed25519:{name}": name}}

    def upload(self):
        master = self.public(self.master)
        return {
            "master_key": self.key("master", self.master),
            "self_signing_key": signed(
                self.key("self_signing", self.self_signing), self.master, self.user, master),
            "user_signing_key": signed(
                self.key("user_signing", self.user_signing), self.master, self.user, master),
        }


class Device:
    def __init__(self, url, name, device_id):
        self.url, self.user, self.device_id, self.since = url, f"@{name}:localhost", device_id, None
        login = self.ask("POST", "login", {
            "type": "m.login.password", "identifier": {"type": "m.id.user", "user": name}, "password": "secret",
            "device_id": device_id}, token=None)
        self.token = login["access_token"]
        self.account = vodozemac.Account()
        self.ed25519 = self.account.ed25519_key.to_base64()
        self.curve25519 = self.account.curve25519_key.to_base64()
        self.keys = signed({
            "user_id": self.user, "device_id": device_id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", MEGOLM],
            "keys": {f"ed25519:{device_id}": self.ed25519, f"curve25519:{device_id}": self.curve25519},
        }, self.account, self.user, device_id)
        self.account.generate_one_time_keys(5)
        one_time = {
            f"signed_curve25519:{name}": signed({"key": key.to_base64()}, self.account, self.user, device_id)
            for name, key in self.account.one_time_keys.items()}
        counts = self.ask("POST", "keys/upload", {"device_keys": self.keys, "one_time_keys": one_time})
        check(counts["one_time_key_counts"] == {"signed_curve25519": 5}, f"the counts are {counts}")
        self.account.mark_keys_as_published()

    def ask(self, method, path, body=None, token=True, status=200):
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(
            f"{self.url}/_matrix/client/v3/{path}", method=method, headers=headers,
            data=None if body is None else json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                code, read = answer.status, json.load(answer)
        except urllib.error.HTTPError as failure:
            code, read = failure.code, json.load(failure)
        check(code == status, f"{method} {path}: {code} {read}")
        return read

    def sync(self, timeout=0):
        query = f"?timeout={timeout}" + (f"&since={self.since}" if self.since else "")
        answer = self.ask("GET", "sync" + query)
        self.since = answer["next_batch"]
        return answer

    def events(self):
        return self.sync(10_000).get("to_device", {}).get("events", [])

    def send(self, kind, content, other):
        self.ask("PUT", f"sendToDevice/{kind}/{uuid.uuid4()}", {"messages": {other.user: {other.device_id: content}}})

    def query(self, user):
        return self.ask("POST", "keys/query", {"device_keys": {user: []}})

    def olm_session(self, other):
        """A session with another device, made with one of its one-time keys."""
        claimed = self.ask("POST", "keys/claim", {
            "one_time_keys": {other.user: {other.device_id: "signed_curve25519"}}})
        (key,) = claimed["one_time_keys"][other.user][other.device_id].values()
        keys = self.query(other.user)["device_keys"][other.user][other.device_id]["keys"]
        check(
            is_signed(key, keys[f"ed25519:{other.device_id}"], other.user, other.device_id),
            "the one-time key is not signed by its device")
        return self.account.create_outbound_session(
            vodozemac.Curve25519PublicKey.from_base64(keys[f"curve25519:{other.device_id}"]),
            vodozemac.Curve25519PublicKey.from_base64(key["key"]))


def verify(first, second, keys):
    """Short authentication strings over messages to devices, with the master keys among what is authenticated."""
    transaction = str(uuid.uuid4())
    sas = {device: vodozemac.Sas() for device in (first, second)}
    public = {device: sas[device].public_key.to_base64() for device in (first, second)}
    established, macs = {}, {}
    for device, other in ((first, second), (second, first)):
        device.send("m.key.verification.key", {"transaction_id": transaction, "key": public[device]}, other)
    for device, other in ((first, second), (second, first)):
        (event,) = device.events()
        check(event["sender"] == other.user and event["type"] == "m.key.verification.key", f"got {event}")
        established[device] = sas[device].diffie_hellman(
            vodozemac.Curve25519PublicKey.from_base64(event["content"]["key"]))
    info = f"MATRIX_KEY_VERIFICATION_SAS|{first.user}|{second.user}|{transaction}"
    seen = [list(established[device].bytes(info).emoji_indices) for device in (first, second)]
    check(seen[0] == seen[1] and len(seen[0]) == 7, f"the strings differ: {seen}")
    for device, other in ((first, second), (second, first)):
        base = "MATRIX_KEY_VERIFICATION_MAC" + "".join(
            (device.user, device.device_id, other.user, other.device_id, transaction))
        master = keys[device].public(keys[device].master)
        mac = {f"ed25519:{device.device_id}": device.ed25519, f"ed25519:{master}": master}
        content = {
            "transaction_id": transaction,
            "mac": {name: established[device].calculate_mac(key, base + name) for name, key in mac.items()},
            "keys": established[device].calculate_mac(",".join(sorted(mac)), base + "KEY_IDS")}
        device.send("m.key.verification.mac", content, other)
    for device, other in ((first, second), (second, first)):
        (event,) = device.events()
        macs[device] = event["content"]
        base = "MATRIX_KEY_VERIFICATION_MAC" + "".join(
            (other.user, other.device_id, device.user, device.device_id, transaction))
        established[device].verify_mac(",".join(sorted(macs[device]["mac"])), base + "KEY_IDS", macs[device]["keys"])
        answer = device.query(other.user)
        (master_name,) = answer["master_keys"][other.user]["keys"].values()
        known = {
            f"ed25519:{other.device_id}":
                answer["device_keys"][other.user][other.device_id]["keys"][f"ed25519:{other.device_id}"],
            f"ed25519:{master_name}": master_name}
        for name, mac in macs[device]["mac"].items():
            established[device].verify_mac(known[name], base + name, mac)
        # What was verified is signed.
        own = keys[device]
        master = {k: v for k, v in answer["master_keys"][other.user].items() if k != "signatures"}
        failures = device.ask("POST", "keys/signatures/upload", {
            other.user: {master_name: signed(master, own.user_signing, device.user, own.public(own.user_signing))}})
        check(failures["failures"] == {}, f"the signature was refused: {failures}")


def sign_own(device, keys):
    ssk = keys.public(keys.self_signing)
    failures = device.ask("POST", "keys/signatures/upload", {
        device.user: {device.device_id: signed(device.keys, keys.self_signing, device.user, ssk)}})
    check(failures["failures"] == {}, f"the signature was refused: {failures}")


def cross_signing(alice, bob, tablet):
    keys = {alice: CrossSigning(alice.user), bob: CrossSigning(bob.user)}
    for device in (alice, bob):
        device.ask("POST", "keys/device_signing/upload", keys[device].upload())
        sign_own(device, keys[device])
    sign_own(tablet, keys[alice])
    # Other keys would need the password.
    challenge = bob.ask("POST", "keys/device_signing/upload", CrossSigning(bob.user).upload(), status=401)
    check(challenge["flows"] == [{"stages": ["m.login.password"]}], f"the challenge is {challenge}")
    for device in (alice, bob, tablet):
        device.sync()
    verify(alice, bob, keys)
    check(bob.user in tablet.sync()["device_lists"]["changed"], "alice's other device doesn't hear whom she has verified")

    # From alice's master key to bob's device, link by link, as her other device sees it; and not as bob does.
    own, other = tablet.query(alice.user), tablet.query(bob.user)
    master = keys[alice].public(keys[alice].master)
    (user_signing,) = own["user_signing_keys"][alice.user]["keys"].values()
    check(is_signed(own["user_signing_keys"][alice.user], master, alice.user, master), "link 1 is missing")
    check(is_signed(other["master_keys"][bob.user], user_signing, alice.user, user_signing), "link 2 is missing")
    (bobs_master,) = other["master_keys"][bob.user]["keys"].values()
    (bobs_self,) = other["self_signing_keys"][bob.user]["keys"].values()
    check(is_signed(other["self_signing_keys"][bob.user], bobs_master, bob.user, bobs_master), "link 3 is missing")
    check(
        is_signed(other["device_keys"][bob.user][bob.device_id], bobs_self, bob.user, bobs_self), "link 4 is missing")
    check(bob.user not in other["user_signing_keys"], "alice sees bob's user-signing key")
    seen = bob.query(bob.user)["master_keys"][bob.user].get("signatures", {})
    check(alice.user not in seen, "bob sees who has verified him")


def meet(alice, bob):
    room = alice.ask("POST", "createRoom", {
        "invite": [bob.user],
        "initial_state": [{"type": "m.room.encryption", "state_key": "", "content": {"algorithm": MEGOLM}}]})["room_id"]
    bob.ask("POST", f"join/{urllib.parse.quote(room)}", {})
    return room


def backup(alice, bob, room, server):
    path = urllib.parse.quote(room)
    # Bob's key goes to alice through Olm, then what he says through Megolm.
    outbound = vodozemac.GroupSession()
    olm = bob.olm_session(alice)
    kind, body = olm.encrypt(json.dumps({
        "type": "m.room_key", "sender": bob.user, "recipient": alice.user, "keys": {"ed25519": bob.ed25519},
        "recipient_keys": {"ed25519": alice.ed25519},
        "content": {
            "algorithm": MEGOLM, "room_id": room, "session_id": outbound.session_id,
            "session_key": outbound.session_key.to_base64()}}).encode()).to_parts()
    bob.send("m.room.encrypted", {
        "algorithm": "m.olm.v1.curve25519-aes-sha2", "sender_key": bob.curve25519,
        "ciphertext": {alice.curve25519: {"type": kind, "body": base64.b64encode(body).decode().rstrip("=")}}}, alice)
    for number in range(3):
        text = json.dumps({"type": "m.room.message", "content": {"msgtype": "m.text", "body": f"secret {number}"}})
        bob.ask("PUT", f"rooms/{path}/send/m.room.encrypted/{number}", {
            "algorithm": MEGOLM, "sender_key": bob.curve25519, "device_id": bob.device_id,
            "session_id": outbound.session_id, "ciphertext": outbound.encrypt(text.encode()).to_base64()})
    answer = alice.sync()
    check(answer["device_one_time_keys_count"] == {"signed_curve25519": 4}, "the claimed key is still counted")
    (event,) = answer["to_device"]["events"]
    message = event["content"]["ciphertext"][alice.curve25519]
    ciphertext = base64.b64decode(message["body"] + "=" * (-len(message["body"]) % 4))
    _, plain = alice.account.create_inbound_session(
        vodozemac.Curve25519PublicKey.from_base64(event["content"]["sender_key"]),
        vodozemac.AnyOlmMessage.from_parts(message["type"], ciphertext).to_pre_key())
    key = json.loads(plain)["content"]
    inbound = vodozemac.InboundGroupSession(vodozemac.SessionKey(key["session_key"]))

    # Alice backs it up, and many others with it.
    secret = vodozemac.Curve25519SecretKey()
    encryption = vodozemac.PkEncryption.from_key(secret.public_key())

    def entry(session_key, index=0):
        ephemeral, mac, ciphertext = encryption.encrypt(json.dumps({
            "algorithm": MEGOLM, "forwarding_curve25519_key_chain": [], "sender_key": bob.curve25519,
            "sender_claimed_keys": {"ed25519": bob.ed25519}, "session_key": session_key}).encode()).to_base64()
        return {
            "first_message_index": index, "forwarded_count": 0, "is_verified": True,
            "session_data": {"ciphertext": ciphertext, "mac": mac, "ephemeral": ephemeral}}

    version = alice.ask("POST", "room_keys/version", {
        "algorithm": BACKUP, "auth_data": {"public_key": secret.public_key().to_base64()}})["version"]
    alice.ask("PUT", f"room_keys/keys/{path}/{urllib.parse.quote(key['session_id'], safe='')}?version={version}",
              entry(inbound.export_at(0).to_base64()))
    others = {f"other session {number}": entry("x", number) for number in range(200)}
    state = alice.ask("PUT", f"room_keys/keys?version={version}", {"rooms": {"!elsewhere:localhost": {"sessions": others}}})
    check(state["count"] == 201, f"the backup has {state}")
    # A worse key of the same session doesn't take its place.
    later = {key["session_id"]: entry(inbound.export_at(2).to_base64(), 2)}
    again = alice.ask("PUT", f"room_keys/keys/{path}?version={version}", {"sessions": later})
    check(again == state, f"a worse key was taken: {again}")
    server.kill()
    server.start()

    # A new device has the decryption key, and nothing else.
    phone = Device(alice.url, "alice", "ALICEPHONE")
    info = phone.ask("GET", "room_keys/version")
    check(
        (info["version"], info["count"], info["auth_data"]["public_key"])
        == (version, 201, secret.public_key().to_base64()), f"the backup is {info}")
    restored = phone.ask("GET", f"room_keys/keys?version={version}")["rooms"]
    check(len(restored["!elsewhere:localhost"]["sessions"]) == 200, "not all keys were restored")
    decryption = vodozemac.PkDecryption.from_key(secret)
    sessions = {}
    for name, one in restored[room]["sessions"].items():
        data = one["session_data"]
        opened = json.loads(decryption.decrypt(
            vodozemac.Message.from_base64(data["ciphertext"], data["mac"], data["ephemeral"])))
        sessions[name] = vodozemac.InboundGroupSession.import_session(
            vodozemac.ExportedSessionKey(opened["session_key"]))
    timeline = phone.sync()["rooms"]["join"][room]["timeline"]["events"]
    read = [
        json.loads(sessions[event["content"]["session_id"]].decrypt(
            vodozemac.MegolmMessage.from_base64(event["content"]["ciphertext"])).plaintext)["content"]["body"]
        for event in timeline if event["type"] == "m.room.encrypted"]
    check(read == ["secret 0", "secret 1", "secret 2"], f"the new device reads {read}")
    alice.ask("DELETE", f"room_keys/version/{version}")
    phone.ask("GET", "room_keys/version", status=404)


def main():
    with Roost("--open-registration") as server:
        for name in ("alice", "bob"):
            body = {"username": name, "password": "secret", "inhibit_login": True, "auth": {"type": "m.login.dummy"}}
            urllib.request.urlopen(urllib.request.Request(
                f"{server.url}/_matrix/client/v3/register", method="POST", data=json.dumps(body).encode()))
        alice, tablet = Device(server.url, "alice", "ALICEONE"), Device(server.url, "alice", "ALICETWO")
        bob = Device(server.url, "bob", "BOB")
        room = meet(alice, bob)
        cross_signing(alice, bob, tablet)
        backup(alice, bob, room, server)
        check(server.stop() == 0, "the server does not stop with status 0")
    print("vodozemac: masters were signed after comparing strings, and a new device read the past from a backup")


main()
