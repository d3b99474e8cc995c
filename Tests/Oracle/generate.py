"""Generates rooms and lets Synapse judge them.

Every room is a graph of events with forks, fights over power, bans, concurrent joins, restricted joins, third-party
invites and, in version 12, several creators. Synapse's authorisation decides about each event, Synapse's state
resolution about each merge; both are written down as cases that our implementation must agree with.

    generate.py OUTPUT_FOLDER [--rooms N] [--events N] [--seed N] [--versions 1,2,...]

Writes one file per room version with one room per line, and one with single events; see README.md for the format. The same seed gives the same
cases with the same version of Synapse.
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import sys

import canonicaljson
import signedjson.key
import signedjson.sign
import unpaddedbase64
from synapse import event_auth
from synapse.api.errors import SynapseError
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.crypto.event_signing import compute_content_hash, compute_event_signature
from synapse.events import make_event_from_json
from synapse.events.utils import prune_event
from synapse.state import v1, v2
from synapse.storage.databases.main.event_federation import StateDifference

USERS = ["@alice:hs1", "@bob:hs2", "@carol:hs3", "@dave:hs1", "@eve:hs4", "@frank:hs2", "@grace:hs3"]
CREATE = ("m.room.create", "")


class Clock:
    async def sleep(self, _):
        return None


class Room:
    """One room, which is also the store that Synapse's state resolution asks for events."""

    def __init__(self, version, seed, size):
        self.rng = random.Random(seed)
        self.seed = seed
        self.size = size
        self.version = KNOWN_ROOM_VERSIONS[version]
        self.number = int(version)
        self.events = []
        self.sources = []
        self.index = {}
        self.by_id = {}
        self.chains = {}
        self.state_after = {}
        self.accepted = []
        self.extremities = []
        self.checks = []
        self.resolutions = []
        self.clock_ms = 1_600_000_000_000
        self.counter = 0
        self.room_id = None if self.number >= 12 else "!room:hs1"
        self.identity_key = signedjson.key.decode_signing_key_base64(
            "ed25519", "0", "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
        self.tokens = []

    # The store.

    async def get_events(self, ids, *_args, **_kwargs):
        return {i: self.by_id[i] for i in ids if i in self.by_id}

    def chain_of_state(self, ids):
        # The events of a state are parts of its auth chain.
        chain = set(ids)
        for event_id in ids:
            chain |= self.chains[event_id]
        return chain

    async def get_auth_chain_difference(self, _room_id, state_sets, conflicted, _additional):
        chains = [self.chain_of_state(s) for s in state_sets]
        difference = set.union(*chains) - set.intersection(*chains)
        subgraph = None
        if conflicted is not None:
            below = set(conflicted).union(*(self.chains[c] for c in conflicted))
            subgraph = {e for e in below if e in conflicted or self.chains[e] & conflicted}
        return StateDifference(auth_difference=difference, conflicted_subgraph=subgraph)

    # Events.

    def make(self, type_, sender, content, state_key, prevs, state, extra_auth=(), extra=None):
        self.counter += 1
        rng = self.rng
        # Clocks differ between servers, and some lie; equal timestamps leave the decision to the event IDs.
        self.clock_ms += rng.choice([0, 0, 1, 1000])
        ts = self.clock_ms + rng.choice([0, 0, 0, 0, -5000, 5000, rng.randint(-10**6, 10**6)])
        depth = 1 + max((json.loads(self.sources[self.index[p]])["depth"] for p in prevs), default=0)
        if rng.random() < 0.1:
            depth = max(1, depth + rng.randint(-3, 3))
        event = {
            "type": type_, "sender": sender, "content": content, "origin_server_ts": ts, "depth": depth,
            "hashes": {"sha256": "c29tZXRoaW5n%d" % self.counter}, "prev_events": [], "auth_events": [],
            "signatures": {s: {"ed25519:1": "c2lnbmVk"} for s in {u.split(":")[1] for u in USERS}},
        }
        if state_key is not None:
            event["state_key"] = state_key
        if not (self.number >= 12 and type_ == "m.room.create"):
            event["room_id"] = self.room_id
        if extra:
            event.update(extra)
        auth = []
        if type_ != "m.room.create":
            keys = self.auth_keys(event)
            auth = [state[k] for k in sorted(keys) if k in state]
        auth += list(extra_auth)
        if self.number <= 2:
            event["event_id"] = "$%d-%d:%s" % (self.seed, self.counter, sender.split(":")[1])
            event["auth_events"] = [[a, {}] for a in auth]
            event["prev_events"] = [[p, {}] for p in prevs]
        else:
            event["auth_events"] = auth
            event["prev_events"] = list(prevs)
        source = json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return make_event_from_json(source, self.version), source

    def auth_keys(self, event):
        probe = make_event_from_json(
            json.dumps({**event, "event_id": "$probe:hs1", "prev_events": [], "auth_events": []} if self.number <= 2 else event),
            self.version)
        keys = set(event_auth.auth_types_for_event(self.version, probe))
        if self.number >= 12:
            keys.discard(CREATE)
        return keys

    def remember(self, event, source):
        if event.event_id in self.index:
            return
        self.index[event.event_id] = len(self.events)
        self.events.append(event)
        self.sources.append(source)
        self.by_id[event.event_id] = event
        chain = set()
        for auth in event.auth_event_ids():
            chain.add(auth)
            chain |= self.chains.get(auth, set())
        self.chains[event.event_id] = chain

    async def judge(self, event, state):
        """Synapse's verdicts: by the rules about auth events, and by the rules about state."""
        try:
            await event_auth.check_state_independent_auth_rules(self, event)
            independent = True
        except SynapseError:
            independent = False
        dependent = None
        if event.type != "m.room.create":
            try:
                event_auth.check_state_dependent_auth_rules(event, [self.by_id[e] for e in state.values()])
                dependent = True
            except SynapseError:
                dependent = False
        return independent, dependent

    async def check(self, event, source, state):
        self.remember(event, source)
        independent, dependent = await self.judge(event, state)
        if not self.is_known_disagreement(event, state):
            self.checks.append(
                [self.index[event.event_id], sorted(self.index[e] for e in state.values()), independent, dependent])
        return independent and dependent is not False

    def is_known_disagreement(self, event, state):
        """Where Synapse departs from the text; docs/protocol-core.md has the reasons."""
        create = state.get(CREATE)
        # In a room that doesn't federate Synapse also looks at the server of a member event's target.
        return (
            event.type == "m.room.member" and create is not None
            and self.by_id[create].content.get("m.federate") is False
            and event.state_key.split(":")[1] != self.by_id[create].sender.split(":")[1])

    async def resolve(self, states, record=True):
        room_id = self.room_id
        if self.number == 1:
            result = await v1.resolve_events_with_store(room_id, self.version, states, None, self.get_events)
        else:
            result = await v2.resolve_events_with_store(Clock(), room_id, self.version, states, None, self)
        result = dict(result)
        if record:
            self.resolutions.append([
                [sorted(self.index[e] for e in s.values()) for s in states],
                sorted(self.index[e] for e in result.values())])
        return result

    async def state_before(self, prevs):
        states = [self.state_after[p] for p in prevs]
        distinct = [s for i, s in enumerate(states) if s not in states[:i]]
        if len(distinct) == 1:
            return distinct[0]
        return await self.resolve(distinct)

    async def add(self, type_, sender, content, state_key=None, prevs=None, extra=None):
        prevs = list(prevs if prevs is not None else self.extremities)
        state = await self.state_before(prevs) if prevs else {}
        event, source = self.make(type_, sender, content, state_key, prevs, state, extra=extra)
        if self.number >= 12 and type_ == "m.room.create":
            self.room_id = event.room_id
        if not await self.check(event, source, state):
            return None
        after = dict(state)
        if state_key is not None:
            after[(type_, state_key)] = event.event_id
        self.state_after[event.event_id] = after
        self.accepted.append(event.event_id)
        self.extremities = [e for e in self.extremities if e not in prevs] + [event.event_id]
        return event

    # What happens in a room.

    async def start(self):
        rng = self.rng
        creator = USERS[0]
        content = {"room_version": str(self.number)}
        if self.number <= 10:
            content["creator"] = creator
        if rng.random() < 0.1:
            content["m.federate"] = rng.choice([True, False])
        if self.number >= 12 and rng.random() < 0.5:
            content["additional_creators"] = rng.sample(USERS, rng.randint(0, 2))
        await self.add("m.room.create", creator, content, "", [])
        await self.add("m.room.member", creator, {"membership": "join"}, creator)
        if rng.random() < 0.9:
            await self.add("m.room.power_levels", creator, self.power_levels({}), "")
        await self.add("m.room.join_rules", creator, {"join_rule": rng.choice(["public", "public", "invite", "restricted"])}, "")
        for user in USERS[1:4]:
            if rng.random() < 0.6:
                await self.add("m.room.member", creator, {"membership": "invite"}, user)
            await self.add("m.room.member", user, {"membership": "join"}, user)

    def level(self):
        rng = self.rng
        level = rng.choice([0, 0, 25, 50, 50, 75, 100, 100, 101, -1])
        if self.number <= 9 and rng.random() < 0.15:
            return rng.choice(["%d", " %d ", "%d ", "0%d"]) % abs(level)
        return level

    def power_levels(self, old):
        """Small changes to the levels that there are, so that a good part of the changes is allowed."""
        rng = self.rng
        new = json.loads(json.dumps(old))
        if not old:
            new["users"] = {}
            if self.number < 12:
                new["users"][USERS[0]] = 100
            for user in rng.sample(USERS[1:], 3):
                new["users"][user] = rng.choice([100, 50, 50, 25])
        for _ in range(rng.randint(1, 3)):
            what = rng.random()
            if what < 0.4:
                new.setdefault("users", {})[rng.choice(USERS)] = self.level()
            elif what < 0.5 and new.get("users"):
                new["users"].pop(rng.choice(sorted(new["users"])))
            elif what < 0.7:
                new.setdefault("events", {})[rng.choice(["m.room.topic", "m.room.power_levels", "m.room.join_rules", "m.room.message"])] = self.level()
            elif what < 0.8:
                new.setdefault("notifications", {})["room"] = self.level()
            elif what < 0.97:
                key = rng.choice(["ban", "kick", "invite", "redact", "state_default", "events_default", "users_default"])
                if rng.random() < 0.3:
                    new.pop(key, None)
                else:
                    new[key] = self.level()
            else:
                new[rng.choice(["ban", "users_default"])] = rng.choice([2**53 - 1, -(2**53) + 1])
        return new

    async def act(self):
        rng = self.rng
        sample = rng.random()
        if sample < 0.5 or len(self.accepted) < 6:
            prevs = list(self.extremities)[:5]
        elif sample < 0.85:
            # A fork: some server has not seen the latest events.
            prevs = [rng.choice(self.accepted[-12:])]
        else:
            prevs = rng.sample(self.accepted[-15:], min(rng.randint(2, 4), len(self.accepted[-15:])))
        state = await self.state_before(prevs)
        members = sorted(
            k[1] for k, e in state.items()
            if k[0] == "m.room.member" and self.by_id[e].content.get("membership") == "join")
        sender = rng.choice(members) if members and rng.random() < 0.85 else rng.choice(USERS)
        if rng.random() < 0.25:
            sender = USERS[0]
        target = rng.choice(USERS)
        action = rng.random()
        if action < 0.16:
            old = state.get(("m.room.power_levels", ""))
            content = self.power_levels(dict(json.loads(self.sources[self.index[old]])["content"]) if old else {})
            await self.add("m.room.power_levels", sender, content, "", prevs)
        elif action < 0.26:
            rules = ["public", "invite", "knock", "restricted", "knock_restricted", "private"]
            await self.add("m.room.join_rules", sender, {"join_rule": rng.choice(rules)}, "", prevs)
        elif action < 0.42:
            content = {"membership": "join"}
            if rng.random() < 0.4:
                content["join_authorised_via_users_server"] = rng.choice(members + USERS)
            await self.add("m.room.member", target, content, target if rng.random() < 0.95 else sender, prevs)
        elif action < 0.52:
            await self.add("m.room.member", sender, {"membership": "invite"}, target, prevs)
        elif action < 0.64:
            await self.add("m.room.member", sender, {"membership": "ban"}, target, prevs)
        elif action < 0.74:
            await self.add("m.room.member", sender, {"membership": "leave"}, target, prevs)
        elif action < 0.79:
            await self.add("m.room.member", sender, {"membership": "leave"}, sender, prevs)
        elif action < 0.83:
            await self.add("m.room.member", target, {"membership": "knock"}, target if rng.random() < 0.9 else sender, prevs)
        elif action < 0.92:
            type_ = rng.choice(["m.room.topic", "m.room.topic", "m.room.name", "org.example.custom", "m.room.aliases"])
            key = rng.choice(["", "", "", sender, target, sender.split(":")[1], "x"])
            await self.add(type_, sender, {"n": self.counter}, key, prevs)
        elif action < 0.94:
            target_event = rng.choice(self.accepted)
            if self.number >= 11:
                await self.add("m.room.redaction", sender, {"redacts": target_event}, None, prevs)
            else:
                await self.add("m.room.redaction", sender, {}, None, prevs, extra={"redacts": target_event})
        elif action < 0.96:
            await self.add("m.room.message", sender, {"body": str(self.counter)}, None, prevs)
        else:
            await self.third_party(sender, target, prevs)
        if rng.random() < 0.35:
            await self.second_opinion()

    async def third_party(self, sender, target, prevs):
        rng = self.rng
        if not self.tokens or rng.random() < 0.4:
            token = "token%d" % self.counter
            key = signedjson.key.encode_verify_key_base64(signedjson.key.get_verify_key(self.identity_key))
            content = {"display_name": "x", "key_validity_url": "https://is.example", "public_key": key if rng.random() < 0.5 else "A" * 43}
            if rng.random() < 0.7:
                content["public_keys"] = [{"public_key": key}]
            if await self.add("m.room.third_party_invite", sender, content, token, prevs):
                self.tokens.append(token)
            return
        signed = {"mxid": target, "token": rng.choice(self.tokens)}
        signed = signedjson.sign.sign_json(signed, "is.example", self.identity_key)
        if rng.random() < 0.2:
            signed["mxid"] = rng.choice(USERS)
        await self.add(
            "m.room.member", sender,
            {"membership": "invite", "third_party_invite": {"display_name": "x", "signed": signed}}, target, prevs)

    async def second_opinion(self):
        """An event that exists, judged by a state from elsewhere; and an event with other auth events than it should have."""
        rng = self.rng
        event = rng.choice(self.events)
        state = self.state_after[rng.choice(self.accepted)]
        source = self.sources[self.index[event.event_id]]
        await self.check(event, source, state)
        if event.type != "m.room.create" and rng.random() < 0.5:
            copy = json.loads(source)
            auth = copy["auth_events"]
            if rng.random() < 0.5 and auth:
                auth.pop(rng.randrange(len(auth)))
            else:
                other = rng.choice(self.accepted)
                # Synapse refuses the create event of version 12 here before it comes to authorisation.
                implied = self.number >= 12 and self.by_id[other].type == "m.room.create"
                if self.by_id[other].is_state() and len(auth) < 10 and not implied:
                    auth.append([other, {}] if self.number <= 2 else other)
            if self.number <= 2:
                self.counter += 1
                copy["event_id"] = "$%d-%d:%s" % (self.seed, self.counter, copy["sender"].split(":")[1])
            source = json.dumps(copy, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            await self.check(make_event_from_json(source, self.version), source, state)

    async def run(self):
        await self.start()
        for _ in range(self.size):
            await self.act()
        # Merges of states from anywhere in the graph.
        for _ in range(6):
            picks = self.rng.sample(self.accepted, min(len(self.accepted), self.rng.randint(2, 5)))
            states = [self.state_after[p] for p in picks]
            distinct = [s for i, s in enumerate(states) if s not in states[:i]]
            if len(distinct) > 1:
                await self.resolve(distinct)
        return {
            "seed": self.seed, "version": str(self.number), "events": [json.loads(s) for s in self.sources],
            "ids": [e.event_id for e in self.events], "checks": self.checks, "resolutions": self.resolutions,
        }


PROTECTED = {
    "m.room.member": ["membership", "join_authorised_via_users_server", "third_party_invite"],
    "m.room.create": ["creator", "room_version", "predecessor"],
    "m.room.join_rules": ["join_rule", "allow"],
    "m.room.power_levels": ["ban", "events", "events_default", "invite", "kick", "notifications", "redact", "users", "users_default"],
    "m.room.aliases": ["aliases"],
    "m.room.history_visibility": ["history_visibility"],
    "m.room.redaction": ["redacts", "reason"],
    "m.room.message": ["body", "membership"],
}


def random_value(rng, number, depth=0):
    kind = rng.randint(0, 7 if depth < 3 else 4)
    if kind <= 1:
        pieces = ["a", "\u00e9", "\U0001f600", "\"", "\\", "/", "\n", "\t", "\x01", "\x7f", "\u2028", "e\u0301", "\u0000", " "]
        return "".join(rng.choice(pieces) for _ in range(rng.randint(0, 6)))
    if kind == 2:
        return rng.choice([0, 1, -1, 2**53 - 1, -(2**53) + 1, rng.randint(-1000, 1000)])
    if kind == 3:
        return rng.choice([True, False, None])
    if kind == 4:
        # Versions 1 to 5 know integers of any size.
        return 2**70 if number <= 5 and rng.random() < 0.2 else 5
    if kind == 5:
        return [random_value(rng, number, depth + 1) for _ in range(rng.randint(0, 3))]
    keys = ["b", "a", "\u00e9", "e\u0301", "\ufffd", "\U0001f600", "aa", "", "\"", "signed", "Z", "\u0000"]
    return {k: random_value(rng, number, depth + 1) for k in rng.sample(keys, rng.randint(0, 5))}


def random_events(number, seed, count):
    """Events of all types that redaction knows, with Synapse's ID, redacted form, content hash and signature."""
    rng = random.Random(seed)
    version = KNOWN_ROOM_VERSIONS[str(number)]
    key = signedjson.key.decode_signing_key_base64("ed25519", "1", "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
    for _ in range(count):
        type_ = rng.choice(sorted(PROTECTED))
        names = PROTECTED[type_] + ["other"]
        content = {k: random_value(rng, number) for k in rng.sample(names, rng.randint(0, len(names)))}
        if type_ == "m.room.member" and rng.random() < 0.5:
            content["third_party_invite"] = {"display_name": "x", "signed": {"token": "t"}}
        event = {
            "type": type_, "sender": "@a:hs1", "room_id": "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM" if number >= 12 else "!r:hs1",
            "content": content, "origin_server_ts": rng.randint(0, 10**13), "depth": rng.randint(1, 1000),
            "hashes": {"sha256": "x"}, "signatures": {"hs1": {"ed25519:1": "x"}}, "prev_events": [], "auth_events": [],
            "unsigned": {"age": 1},
        }
        if number >= 12 and type_ == "m.room.create":
            del event["room_id"]
            event["state_key"] = ""
        if number <= 2:
            event["event_id"] = "$%d:hs1" % rng.randint(0, 10**9)
        if "state_key" not in event and rng.random() < 0.7:
            event["state_key"] = ""
        for extra in ["origin", "membership", "prev_state", "redacts", "zzz"]:
            if rng.random() < 0.3:
                event[extra] = rng.choice(["x", []]) if extra != "redacts" else "$x:hs1"
        made = make_event_from_json(json.dumps(event), version)
        redacted = dict(prune_event(made).get_dict())
        redacted.pop("unsigned", None)
        algorithm, digest = compute_content_hash(dict(event), hashlib.sha256)
        signature = compute_event_signature(version, dict(event), "hs1", key)["hs1"]["ed25519:1"]
        # Spelled with the members in any order and with all escapes, as JSON may be.
        members = list(event.items())
        rng.shuffle(members)
        yield {
            "event": json.dumps(dict(members), indent=rng.choice([None, 1])), "id": made.event_id,
            "redacted": canonicaljson.encode_canonical_json(redacted).decode("utf-8"),
            "hash": unpaddedbase64.encode_base64(digest), "signature": signature,
        }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output")
    parser.add_argument("--rooms", type=int, default=60, help="rooms per version")
    parser.add_argument("--events", type=int, default=50, help="attempts to send an event per room")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--versions", default=",".join(str(n) for n in range(1, 13)))
    options = parser.parse_args()
    os.makedirs(options.output, exist_ok=True)
    for version in options.versions.split(","):
        path = os.path.join(options.output, "v%s.jsonl" % version)
        base = options.seed * 1_000_000 + int(version) * 10_000
        with open(os.path.join(options.output, "events-v%s.jsonl" % version), "w", encoding="utf-8") as file:
            for event in random_events(int(version), base, options.rooms * 10):
                file.write(json.dumps(event, separators=(",", ":")) + "\n")
        checks = resolutions = 0
        with open(path, "w", encoding="utf-8") as file:
            for number in range(options.rooms):
                seed = base + number
                room = asyncio.run(Room(version, seed, options.events).run())
                checks += len(room["checks"])
                resolutions += len(room["resolutions"])
                file.write(json.dumps(room, separators=(",", ":"), ensure_ascii=False) + "\n")
        print("version %s: seeds %d to %d, %d checks, %d resolutions" % (version, base, seed, checks, resolutions))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
