"""Takes the three clients through a day with a server on each engine."""

import asyncio
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))

import accounts  # noqa: E402
import events  # noqa: E402
import person  # noqa: E402
import rooms  # noqa: E402
from people import People  # noqa: E402
from postgres_database import PostgresDatabase  # noqa: E402
from roost_server import Roost  # noqa: E402


async def day(url):
    async with People(url) as people:
        # Accounts come last again: at the end of the day one of them leaves for good.
        for journey in (accounts.arrive, rooms.journey, events.journey, person.journey, accounts.leave):
            await journey(people)


def spend(engine, environment):
    begin = time.monotonic()
    # Limits are as they are for everybody: who lives an ordinary day doesn't meet them.
    with Roost("--open-registration", environment=environment) as server:
        asyncio.run(asyncio.wait_for(day(server.url), 120))
        same = server.stop() == 0
        if not same:
            raise AssertionError("the server does not stop with status 0")
        if "error" in {line.split()[1].lower() for line in server.whole_log().splitlines() if len(line.split()) > 1}:
            raise AssertionError(f"the server logged an error:\n{server.log()}")
    print(f"three people spent a day on {engine} in {time.monotonic() - begin:.0f} s")


def main():
    spend("SQLite", {})
    if os.environ.get("ROOST_TEST_POSTGRES"):
        with PostgresDatabase() as database:
            spend("PostgreSQL", {"ROOST_DATABASE_URL": database.url})


main()
