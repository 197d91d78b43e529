"""Typing and receipts in floods: they are limited where they come in, and dropped before anything else."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import defaultdict

import pytest
from redis.asyncio import Redis

from app.services.ephemeral_service import TYPING_PAUSE_SECONDS
from tests.faults.scenarios.redis_watch import count, longest_unnoticed, typical_delivery
from tests.history.plan import Talk
from tests.history.run import Run
from tests.support.servers import new_user
from tests.support.streams import StreamClient

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

FRAME = b'event: typing_status\ndata: {"is_typing":true,"padding":"' + b"x" * 100 + b'"}\n\n'
FLOOD_PER_SECOND = 5000
SLICES = 50


@pytest.mark.scenario(
    "F65",
    "A flood: a group of 50 types and reads all the time, 5,000 typing events a second to a slow reader",
    "one typing event of a user in 2 s per process; messages all come; the slow reader lacks typing only",
)
async def test_a_flood_of_typing_and_receipts(scene):
    """Protocol 3.4, 7.3."""
    cluster = await scene.start()
    seconds = scene.scale.pick(gate=4, whole=12)
    calm_at = flood_at = flooded_at = 0.0
    typed: dict[str, int] = {}
    slow = Slow(cluster.servers[0])

    async def faults(run: Run) -> None:
        nonlocal calm_at, flood_at, flooded_at
        calm_at = time.monotonic()
        await asyncio.sleep(scene.scale.pick(gate=1, whole=4))
        talk = max(run.plan.talks, key=lambda talk: len(talk.members))
        flood_at = time.monotonic()
        with scene.fault("a flood of typing and receipts"):
            async with asyncio.timeout(seconds + 20), asyncio.TaskGroup() as group:
                group.create_task(type_and_read(run, talk, flood_at + seconds))
                group.create_task(hear_typing(cluster.servers[0], talk.members[0], flood_at + seconds, typed))
                group.create_task(slow.suffer(cluster.valkey.port, seconds))
        flooded_at = time.monotonic()

    played = await scene.play(faults, sends_per_second=scene.scale.pick(gate=40, whole=200))
    slowest = played.slowest_delivery()
    assert slowest < longest_unnoticed(scene)
    assert typed, "nobody was heard typing"
    periods = math.ceil((flooded_at - flood_at) / TYPING_PAUSE_SECONDS) + 1
    assert max(typed.values()) <= periods * len(cluster.servers)
    assert slow.messages == slow.sent
    assert slow.typing < slow.flooded, "the reader was not slow"
    assert await count(cluster, "ephemeral_dropped") > 0
    scene.notes["typing_events_a_second_to_the_slow_reader"] = round(slow.flooded / (flooded_at - flood_at))
    scene.notes["median_delivery_seconds_before"] = round(typical_delivery(played, calm_at, flood_at), 4)
    scene.notes["median_delivery_seconds_in_flood"] = round(typical_delivery(played, flood_at, flooded_at), 4)


async def type_and_read(run: Run, talk: Talk, until: float) -> None:
    """Let every member say all the time that it types, and read; more than is let through."""
    path = f"/conversations/{run.conversations[talk.number]}"
    seqs = itertools.count(1)

    async def one(user: str) -> None:
        while time.monotonic() < until:
            status, _ = await run.rest.call("POST", f"{path}/typing", user, {"is_typing": True})
            assert status == 204
            status, _ = await run.rest.call("POST", f"{path}/read", user, {"seq": next(seqs)})
            assert status == 200
            await asyncio.sleep(0.2)

    await asyncio.gather(*(one(user) for user in talk.members))


async def hear_typing(server, user: str, until: float, typed: dict[str, int]) -> None:
    """Count who is heard typing, by user."""
    heard: dict[str, int] = defaultdict(int)
    client = StreamClient(server, user)
    try:
        await client.connected()
        while (rest := until - time.monotonic()) > 0:
            try:
                event = await client.next(rest)
            except TimeoutError:
                break
            if event.name == "typing_status" and event.data:
                heard[event.json["user_id"]] += 1
    finally:
        client.cut()
    typed.update(heard)


class Slow:
    """A user who is flooded, does not read for a while, and is written to meanwhile."""

    def __init__(self, server) -> None:
        self.server = server
        self.user, self.sender = new_user("slow"), new_user("sender")
        self.sent: list[str] = []
        self.messages: list[str] = []
        self.flooded = self.typing = 0

    async def suffer(self, port: int, seconds: float) -> None:
        """Stop reading, be flooded, be sent messages, read on."""
        await self.server.know(self.user, self.sender)
        client = StreamClient(self.server, self.user)
        try:
            await client.open(receive_buffer=4096)
            await client.until("connected")
            client.stop_reading()
            async with Redis(port=port, socket_timeout=5) as redis:
                for number in range(int(seconds * SLICES)):
                    began_at = time.monotonic()
                    pipeline = redis.pipeline(transaction=False)
                    for _ in range(FLOOD_PER_SECOND // SLICES):
                        pipeline.execute_command("PUBLISH", f"user:{self.user}", FRAME)
                    self.flooded += sum(await pipeline.execute())
                    if number % SLICES == 0:
                        self.sent.append(f"{number}")
                        await self.server.send(self.sender, self.user, self.sent[-1])
                    # A client that reads nothing for 10 s is closed: this one is slow.
                    if number == int(3 * SLICES):
                        client.go_on_reading()
                    await asyncio.sleep(max(0.0, 1 / SLICES - (time.monotonic() - began_at)))
            client.go_on_reading()
            await client.messages(len(self.sent), 15)
        finally:
            client.cut()
        self.messages = client.contents
        self.typing = sum(event.name == "typing_status" for event in client.events)
