"""The clock of one machine jumps: order comes from seqs, waiting from the monotonic clock."""

from __future__ import annotations

import asyncio
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.faults.scenarios.steps import longest_silence, until_connected
from tests.history.run import Run
from tests.support.servers import Server, new_user, token_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
HOUR = 3600
LEEWAY_SECONDS = 30  # docs/operations.md


@pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed")
@pytest.mark.scenario(
    "F47",
    "The clock of a process jumps an hour ahead, an hour back, and 2 s to and fro",
    "no stream ends; no heartbeat is late; a token's clock may be 30 s ahead",
    seconds=30,
)
async def test_the_clock_jumps(scene):
    """Protocol 1.2, 7.2, 9.2: only what a token says of time is measured by that clock."""
    cluster = await scene.start(1)
    offset = cluster.folder / "offset"
    offset.write_text("+0")
    await cluster.add_server(
        ld_preload=LIBRARY, faketime_timestamp_file=offset, faketime_no_cache=1, faketime_dont_fake_monotonic=1
    )
    right, wrong = cluster.servers
    ada, bob = new_user("ada"), new_user("bob")
    opened_again = 0

    async def some_come_back(run: Run) -> None:
        nonlocal opened_again
        some = run.devices[:: scene.scale.pick(gate=4, whole=8)]
        since = len(run.history.events)
        for device in some:
            device.reconnect()
        await until_connected(run, some, since=since)
        opened_again += len(some)

    async def faults(run: Run) -> None:
        # What opens from now on has a token for which an hour is nothing; what is open has one that an hour ends.
        run.rest._tokens = {user: old_token(user) for user in run.plan.users}
        await asyncio.sleep(1)
        assert await status_of(wrong, bob, token_for(bob, issued_ago_seconds=5 - LEEWAY_SECONDS)) == 200
        assert await status_of(wrong, bob, token_for(bob, issued_ago_seconds=-5 - LEEWAY_SECONDS)) == 401
        for seconds, what in ((HOUR, "an hour ahead"), (-HOUR, "an hour behind")):
            with scene.fault(what):
                offset.write_text(f"{seconds:+}")
                await until_off_by(wrong, seconds)
                assert await status_of(wrong, bob, token_for(bob)) == 401
                assert await status_of(right, bob, token_for(bob)) == 200
                assert await status_of(wrong, bob, old_token(bob)) == 200
                await some_come_back(run)
                await asyncio.sleep(scene.scale.pick(gate=2.5, whole=5))
        with scene.fault("2 s to and fro"):
            for number in range(scene.scale.pick(gate=10, whole=25)):
                offset.write_text("-2" if number % 2 else "+2")
                await asyncio.sleep(0.2)
            await some_come_back(run)
        offset.write_text("+0")
        await wrong.know(ada)
        await wrong.send(ada, bob, "at the right time again")

    played = await scene.play(faults)
    streams, devices = len(played.history.streams), len(played.history.devices)
    assert streams == devices + opened_again, "streams ended by a clock"
    assert longest_silence(played) < scene.scale.heartbeat_seconds + 5
    connection = await cluster.postgres.connect()
    try:
        off = await connection.fetchval("SELECT max(abs(extract(epoch FROM now() - created_at))) FROM messages")
    finally:
        await connection.close()
    assert off < HOUR / 2, "a message is dated by the wrong clock"


def old_token(user: str) -> str:
    """As good an hour ago as in an hour."""
    return token_for(user, minutes=24 * 60, issued_ago_seconds=2 * HOUR)


async def until_off_by(server: Server, seconds: float) -> None:
    """Wait until a process says so: it writes its `Date` once a second."""
    assert server.session is not None
    async with asyncio.timeout(10):
        off = 0.0
        while abs(off - seconds) > 60:
            async with server.session.get(f"{server.url}/health") as response:
                off = parsedate_to_datetime(response.headers["Date"]).timestamp() - time.time()
            await asyncio.sleep(0.05)


async def status_of(server: Server, user: str, token: str) -> int:
    return (await server.call("GET", "/users/me", headers={"Authorization": f"Bearer {token}"}))[0]
