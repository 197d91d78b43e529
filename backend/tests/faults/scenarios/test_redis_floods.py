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
from tests.faults.kit.vitals import count
from tests.faults.scenarios.calm import Span, no_send_failed, nothing_came_late
from tests.history.plan import Talk
from tests.history.run import Run
from tests.support.servers import new_user
from tests.support.streams import StreamClient

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

FRAME = b'event: typing_status\ndata: {"is_typing":true,"padding":"' + b"x" * 100 + b'"}\n\n'
FLOOD_PER_SECOND = 5000
SLICES = 50
# Many at once, in Redis itself: this program has enough to do.
PUBLISH = "local n = 0 for _ = 1, ARGV[2] do n = n + redis.call('PUBLISH', KEYS[1], ARGV[1]) end return n"


@pytest.mark.scenario(
    "F65",
    "A flood: a group of 50 types and reads all the time, 5,000 typing events a second to a slow reader",
    "one typing event of a user in 2 s per process; messages come as fast as before; the slow one lacks typing only",
    seconds=28,
)
async def test_a_flood_of_typing_and_receipts(scene):
    """Protocol 3.4, 7.3."""
    cluster = await scene.start()
    seconds = scene.scale.pick(gate=4, whole=12)
    calm, flood = Span(), Span()
    typed: dict[str, int] = {}
    slow = Slow(cluster.servers[0])

    async def faults(run: Run) -> None:
        with calm:
            await asyncio.sleep(scene.scale.pick(gate=1, whole=4))
        talk = max(run.plan.talks, key=lambda talk: len(talk.members))
        with scene.fault("a flood of typing and receipts"), flood:
            until = time.monotonic() + seconds
            async with asyncio.timeout(seconds + 20), asyncio.TaskGroup() as group:
                group.create_task(type_and_read(run, talk, until))
                group.create_task(hear_typing(cluster.servers[0], talk.members[0], until, typed))
                group.create_task(slow.suffer(cluster.valkey.port, seconds))

    played = await scene.play(faults, sends_per_second=scene.scale.pick(gate=40, whole=200))
    assert typed, "nobody was heard typing"
    periods = math.ceil((flood.until - flood.since) / TYPING_PAUSE_SECONDS) + 1
    assert max(typed.values()) <= periods * len(cluster.servers)
    scene.notes["typing_events_a_second_to_the_slow_reader"] = round(slow.flooded / slow.flooded_seconds)
    assert slow.flooded / slow.flooded_seconds > FLOOD_PER_SECOND / 2, "it was no flood"
    assert slow.messages == slow.sent
    assert slow.typing < slow.flooded, "the reader was not slow"
    assert await count(cluster, "ephemeral_dropped") > 0
    no_send_failed(played)
    nothing_came_late(scene, played, calm, flood)


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
        self.flooded_seconds = 0.0

    async def suffer(self, port: int, seconds: float) -> None:
        """Stop reading, be flooded, be sent messages, read on."""
        await self.server.know(self.user, self.sender)
        client = StreamClient(self.server, self.user)
        try:
            await client.open(receive_buffer=4096)
            await client.until("connected")
            client.stop_reading()
            began_at = time.monotonic()
            async with Redis(port=port, socket_timeout=5) as redis:
                for number in range(int(seconds * SLICES)):
                    self.flooded += await redis.eval(PUBLISH, 1, f"user:{self.user}", FRAME, FLOOD_PER_SECOND // SLICES)
                    if number % SLICES == 0:
                        self.sent.append(f"{number}")
                        await self.server.send(self.sender, self.user, self.sent[-1])
                    # A client that reads nothing for 10 s is closed: this one is slow.
                    if number == int(3 * SLICES):
                        client.go_on_reading()
                    await asyncio.sleep(began_at + (number + 1) / SLICES - time.monotonic())
            self.flooded_seconds = time.monotonic() - began_at
            client.go_on_reading()
            await client.messages(len(self.sent), 15)
        finally:
            client.cut()
        self.messages = client.contents
        self.typing = sum(event.name == "typing_status" for event in client.events)
