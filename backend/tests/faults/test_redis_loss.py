"""Redis is where notifications come from, and nothing else: without it messages are late, not lost."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from app.embedded import start_valkey
from tests.support.redis import redis_command
from tests.support.servers import new_user

pytestmark = pytest.mark.faults

NOTICED_SECONDS = 6  # until the loss of Redis is noticed
DEGRADED_SECONDS = 2.5  # from commit to event in degraded mode: a check a second, and the grace


class Load:
    """Sends to many users at a steady pace, and knows when each message was acknowledged."""

    def __init__(self, server, sender: str, users: list[str], per_second: float = 40) -> None:
        self.server, self.sender, self.users, self.per_second = server, sender, users, per_second
        self.acknowledged: dict[str, list[str]] = {user: [] for user in users}
        self.acknowledged_at: dict[tuple[str, str], float] = {}
        self.slowest_seconds = 0.0
        self._stop = asyncio.Event()

    async def run(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            user = self.users[number % len(self.users)]
            started = time.monotonic()
            message = await self.server.send(self.sender, user, f"{number}")
            now = time.monotonic()
            self.slowest_seconds = max(self.slowest_seconds, now - started)
            self.acknowledged[user].append(message["content"])
            self.acknowledged_at[user, message["content"]] = now
            await asyncio.sleep(1 / self.per_second)

    def stop(self) -> None:
        self._stop.set()


async def read_all(stream, load: Load) -> None:
    """Read until everything acknowledged to this user has come and the load has stopped."""
    while not load._stop.is_set() or len(stream.contents) < len(load.acknowledged[stream.user]):
        try:
            await stream.next(0.5)
        except TimeoutError:
            continue


@pytest.mark.timeout(120)
async def test_redis_gone_for_twenty_seconds_under_load_loses_nothing(
    start_server, open_stream, valkey, tmp_path, meter
):
    """Protocol 5.4, 6.3, 8.1: no send fails; everything arrives once, in order, and soon; changes are told."""
    one, other = await asyncio.gather(start_server(), start_server())
    ada, users = new_user("ada"), [new_user("user") for _ in range(10)]
    await one.know(ada, *users)
    streams = [await open_stream((one, other)[place % 2], user) for place, user in enumerate(users)]
    load = Load(one, ada, users)
    tasks = [asyncio.create_task(load.run()), *(asyncio.create_task(read_all(s, load)) for s in streams)]
    await asyncio.sleep(1)

    port = valkey.port
    valkey.kill()
    killed_at = time.monotonic()
    await asyncio.sleep(NOTICED_SECONDS)
    ready = (await one.call("GET", "/ready"))[1]
    edited = {}
    for user in users:  # edits, deletes and reactions made meanwhile
        message = await one.send(ada, user, "to be edited")
        load.acknowledged[user].append("to be edited")
        load.acknowledged_at[user, "to be edited"] = time.monotonic()
        await one.call("PATCH", f"/messages/{message['id']}", user=ada, json={"content": "edited"})
        edited[user] = message["id"]
    await asyncio.sleep(20 - NOTICED_SECONDS)
    revived = await asyncio.to_thread(start_valkey, tmp_path / "again", port)
    back_at = time.monotonic()
    try:
        async with asyncio.timeout(5):
            while (await one.call("GET", "/ready"))[1].get("redis") != "up":
                await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        load.stop()
        async with asyncio.timeout(15):
            await asyncio.gather(*tasks)
    finally:
        revived.stop()
    assert ready["redis"] == "down"
    assert load.slowest_seconds < 1.5 + meter.longest()
    for stream in streams:
        # An edit may be seen in the message itself, when it was read from PostgreSQL after the edit.
        received = ["to be edited" if text == "edited" else text for text in stream.contents]
        assert received == load.acknowledged[stream.user]
        assert stream.seqs == list(range(1, len(received) + 1))
        resyncs = [event for event in stream.events if event.name == "resync"]
        assert resyncs, "the edit was not announced"
        assert all(event.json["scope"] == "changes" for event in resyncs)
        for event in stream.events:
            if event.name != "new_message" or not event.data:
                continue
            content = "to be edited" if event.json["content"] == "edited" else event.json["content"]
            delay = event.at - load.acknowledged_at[stream.user, content]
            is_noticed = load.acknowledged_at[stream.user, content] > killed_at + NOTICED_SECONDS
            most_seconds = DEGRADED_SECONDS if is_noticed else NOTICED_SECONDS + DEGRADED_SECONDS
            assert delay < most_seconds + meter.longest()
    assert back_at > killed_at


async def test_a_stopped_redis_is_noticed_and_costs_no_send(start_server, open_stream, valkey, meter):
    """Protocol 8.1: a stopped process accepts connections and says nothing; only probes tell."""
    server = await start_server()
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = await open_stream(server, bob)
    await server.send(ada, bob, "before")
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        await server.send(ada, bob, "while stopped")
        assert time.monotonic() - started < 1 + meter.longest()
        assert [m["content"] for m in await stream.messages(2, 10)] == ["before", "while stopped"]
        assert time.monotonic() - started < NOTICED_SECONDS + DEGRADED_SECONDS + meter.longest()
        started = time.monotonic()
        await server.send(ada, bob, "degraded")
        await stream.messages(1, 10)
        assert time.monotonic() - started < DEGRADED_SECONDS + meter.longest()
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    async with asyncio.timeout(8):
        while (await server.call("GET", "/ready"))[1].get("redis") != "up":
            await asyncio.sleep(0.1)
    started = time.monotonic()
    await server.send(ada, bob, "live again")
    assert [m["content"] for m in await stream.messages(1, 10)] == ["live again"]
    assert time.monotonic() - started < 0.5 + meter.longest()
    assert stream.seqs == [1, 2, 3, 4]


async def test_subscriptions_killed_again_and_again_lose_nothing(start_server, open_stream, valkey):
    """Protocol 5.4: every new acknowledgement is followed by a catch-up."""
    server = await start_server()
    ada, users = new_user("ada"), [new_user("user") for _ in range(5)]
    await server.know(ada, *users)
    streams = [await open_stream(server, user) for user in users]
    load = Load(server, ada, users, per_second=100)
    tasks = [asyncio.create_task(load.run()), *(asyncio.create_task(read_all(s, load)) for s in streams)]
    for _ in range(8):
        await asyncio.sleep(0.5)
        await redis_command(valkey.port, "CLIENT KILL TYPE pubsub")
    await asyncio.sleep(1)
    load.stop()
    async with asyncio.timeout(15):
        await asyncio.gather(*tasks)
    for stream in streams:
        assert stream.contents == load.acknowledged[stream.user]
        assert stream.seqs == list(range(1, len(stream.contents) + 1))


async def test_a_server_that_starts_without_redis_serves_and_joins_it_later(start_server, open_stream, tmp_path, meter):
    """Protocol 8.1."""
    gone = await asyncio.to_thread(start_valkey, tmp_path / "first")
    port = gone.port
    gone.stop()
    server = await start_server(redis_url=f"redis://127.0.0.1:{port}/0")
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = await open_stream(server, bob)
    await server.send(ada, bob, "without")
    assert [m["content"] for m in await stream.messages(1)] == ["without"]
    revived = await asyncio.to_thread(start_valkey, tmp_path / "second", port)
    try:
        async with asyncio.timeout(8):
            while (await server.call("GET", "/ready"))[1].get("redis") != "up":
                await asyncio.sleep(0.1)
        started = time.monotonic()
        await server.send(ada, bob, "with")
        assert [m["content"] for m in await stream.messages(1)] == ["with"]
        assert time.monotonic() - started < 0.5 + meter.longest()
    finally:
        revived.stop()


async def test_clients_are_told_of_a_reconnection_one_after_the_other(start_server, open_stream, valkey):
    """Protocol 8.1: within a heartbeat, or what all of them then ask would come in one moment."""
    heartbeat_seconds = 4
    server = await start_server(heartbeat_seconds=heartbeat_seconds)
    users = [new_user("user") for _ in range(40)]
    await server.know(*users)
    streams = [await open_stream(server, user) for user in users]
    killed_at = time.monotonic()
    await redis_command(valkey.port, "CLIENT KILL TYPE pubsub")
    told = await asyncio.gather(*(stream.until("resync", heartbeat_seconds + 3) for stream in streams))
    assert all(event.json["scope"] == "changes" for event in told)
    seconds = sorted(event.at - killed_at for event in told)
    assert seconds[-1] - seconds[0] > heartbeat_seconds / 2
    for early in seconds:
        at_once = sum(early <= other < early + heartbeat_seconds / 8 for other in seconds)
        assert at_once <= len(users) / 2, "told in one moment"
