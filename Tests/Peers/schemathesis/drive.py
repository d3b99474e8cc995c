"""Asks every operation for generated right and wrong things; nothing may fail inwardly, hang, or bring the server down."""

import collections
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))

import hypothesis  # noqa: E402
import schemathesis  # noqa: E402
from description import describe  # noqa: E402
from postgres_database import Client  # noqa: E402
from roost_server import Roost  # noqa: E402

SEED = int(os.environ.get("ROOST_SEED", "20190611"))
# For each operation, and for right and wrong requests each.
REQUESTS = 8
# Longer than any answer may take on a busy machine.
PATIENCE = 30
# With these the only session would end.
WITHOUT = {"/_matrix/client/v3/logout", "/_matrix/client/v3/logout/all"}
# Answers with a 5xx status that the specification has for what isn't this server's fault.
EXPECTED = {
    502: {"M_CONNECTION_FAILED", "M_BAD_STATUS", "M_UNKNOWN"},
    504: {"M_NOT_YET_UPLOADED", "M_CONNECTION_TIMEOUT"},
}


class Failure(Exception):
    pass


def known(alice, bob):
    """What is there, by the names of the parameters, and by the formats of the table of facts."""
    room = alice.create_room(name="Den", room_alias_name="den")
    bob.join(room)
    event = alice.say(room, "hello")
    bob.say(room, "hello yourself")
    base = f"/_matrix/client/v3/user/{alice.user}"
    filter_id = alice.ask("POST", f"{base}/filter", {"room": {"timeline": {"limit": 1}}})["filter_id"]
    device = alice.ask("GET", "/_matrix/client/v3/account/whoami")["device_id"]
    since = alice.sync()["next_batch"]
    return {
        "roomId": [room], "roomIdOrAlias": [room, "#den:localhost"], "roomAlias": ["#den:localhost"],
        "eventId": [event], "userId": [alice.user, bob.user], "filterId": [filter_id], "deviceId": [device],
        "eventType": ["m.room.message", "m.room.topic", "m.room.member"], "stateKey": ["", bob.user],
        "type": ["m.ignored_user_list", "m.invite_permission_config"], "serverName": ["localhost"], "since": [since],
        "from": [since], "keyName": ["displayname"], "receiptType": ["m.read"], "relType": ["m.thread"],
        "user_id": [bob.user], "mx-user-id": [alice.user, bob.user], "mx-room-id": [room], "mx-event-id": [event],
        "mx-room-alias": ["#den:localhost"], "mx-server-name": ["localhost"],
    }


def ask(operation, mode, url, token, statuses):
    """Sends the generated requests of an operation."""

    @hypothesis.seed(SEED)
    @hypothesis.settings(
        max_examples=REQUESTS, database=None, deadline=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck), verbosity=hypothesis.Verbosity.quiet)
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def send(case):
        answer = case.call(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE)
        statuses[answer.status_code] += 1
        if answer.status_code < 500:
            return
        try:
            code = answer.json()["errcode"]
        except Exception:
            code = None
        if code not in EXPECTED.get(answer.status_code, ()):
            raise Failure(f"{answer.status_code} {answer.content[:500]!r}\n{case.as_curl_command()}")

    send()


def main():
    begin = time.monotonic()
    print(f"seed {SEED}")
    statuses, failures = collections.Counter(), []
    with Roost("--open-registration", environment={"ROOST_RATE_LIMITS_ENABLED": "false"}) as server:
        alice, bob = Client(server.url).register("alice"), Client(server.url).register("bob")
        schema = schemathesis.openapi.from_dict(describe(known(alice, bob), WITHOUT))
        count = 0
        for operation in schema.get_all_operations():
            operation = operation.ok()
            count += 1
            for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
                try:
                    ask(operation, mode, server.url, alice.token, statuses)
                except (hypothesis.errors.Unsatisfiable, hypothesis.errors.NoSuchExample):
                    # Nothing is wrong for an operation that takes nothing.
                    continue
                except Exception as failure:
                    failures.append(f"{operation.label}, {mode}: {failure!r}")
        # The server is still there, and so is what it had.
        who = alice.ask("GET", "/_matrix/client/v3/account/whoami")
        if who["user_id"] != alice.user:
            failures.append(f"alice is {who}")
        if server.stop() != 0:
            failures.append("the server does not stop with status 0")
        errors = [line for line in server.whole_log().splitlines() if " error " in line or " critical " in line]
        failures += errors[:5]
    total = sum(statuses.values())
    print(f"{total} requests to {count} operations in {time.monotonic() - begin:.0f} s: "
          + ", ".join(f"{status}: {number}" for status, number in sorted(statuses.items())))
    if failures:
        sys.exit("\n\n".join(failures[:20]))
    # Generated requests that never get through would test nothing but the checks at the door.
    if count < 150 or statuses[200] < total // 10:
        sys.exit("too little was asked for, or too little of it was right")


main()
