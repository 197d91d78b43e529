"""What the head check owes to streams in each of their states, one by one."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from app.inbox import Head
from app.services.messaging import heartbeat, stream_registry
from app.services.messaging.heartbeat import Heartbeat
from app.services.messaging.stream_registry import StreamRegistry
from tests.model.test_stream_model import World
from tests.support.streams import parse_block


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(heartbeat, "GRACE_SECONDS", 0.01)


def check_of(world: World) -> Heartbeat:
    async def heads(user_ids: Any) -> dict[str, Head]:
        del user_ids
        return {"bob": Head("db", len(world.inbox), world.change, None)}

    return Heartbeat(cast("Any", None), heads, heartbeat_seconds=10, is_degraded=lambda: False)


async def opened(world: World) -> None:
    world.stream.on_subscribed()
    missed = await world._fetch("bob", 2**63 - 1)
    await world.stream.open(None, missed, heartbeat_seconds=10)


def names(world: World) -> list[str]:
    return [parse_block(block + b"\n\n").name for block in b"".join(world.wire.written).split(b"\n\n")[:-1]]


async def test_what_was_lost_while_a_slow_client_was_behind_is_not_left_to_the_next_heartbeat():
    """Protocol 5.4: what a stream is reading may be older than what the check has seen."""
    world = World()
    await opened(world)
    world.wire.readable.clear()
    world.stream.on_frame(world.commit_message())  # the client is behind: the stream catches up
    world.commit_message()  # Redis lost it
    await check_of(world)._check([world.stream])
    world.wire.readable.set()
    await world.settle()
    assert world.stream.seq == 2


async def test_a_stream_that_is_opening_is_not_told_to_resync():
    """Protocol 4.4, 6.3: it reads by itself, and `connected` says what there is to ask."""
    world = World()
    world.commit_message()
    world.commit_change()
    await check_of(world)._check([world.stream])
    await opened(world)
    await world.settle()
    assert "resync" not in names(world)


async def test_a_stream_that_ended_before_its_response_began_stays_ended():
    """Protocol 4.7: nothing is written for a stream that is in nobody's list."""
    world = World()
    world.stream.end("too_many_streams", retry_ms=15_000)
    await opened(world)
    assert world.stream.has_ended
    assert world.wire.written == []


@pytest.mark.parametrize("count", [1, 19, 101, 149, 150, 249, 1000])
async def test_a_drain_lasts_no_longer_than_it_may_however_many_streams_there_are(monkeypatch, count):
    """Protocol 7.1: all are told within 5 s."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    class Ending:
        has_ended = False

        def end(self, reason: str, *, retry_ms: int) -> None:
            assert (reason, retry_ms >= 500) == ("drain", True)
            self.has_ended = True

    registry = StreamRegistry(cast("Any", None), cast("Any", None), max_streams_per_user=20)
    streams = [Ending() for _ in range(count)]
    monkeypatch.setattr(registry, "all", lambda: list(streams))
    monkeypatch.setattr(asyncio, "sleep", pause)
    await registry.drain()
    assert all(stream.has_ended for stream in streams)
    assert sum(pauses) <= stream_registry.DRAIN_SECONDS


async def test_a_change_does_not_overtake_the_message_that_it_may_be_about():
    """Protocol 5.5, 6.5: a delete that comes first would leave the deleted text on the screen."""
    world = World()
    await opened(world)
    late, second = world.commit_message(), world.commit_message()
    delete = world.commit_change()
    for frame in (second, delete, late):
        world.stream.on_frame(frame)
    assert names(world)[-3:] == ["new_message", "new_message", "message_edited"]
    assert world.stream.is_live


async def test_gaps_of_messages_and_changes_that_hold_one_another_are_read():
    """Protocol 5.5: a change is missing before a message, and that message's turn comes after another."""
    world = World()
    await opened(world)
    world.commit_message()
    message = world.commit_message()
    first, second = world.commit_change(), world.commit_change()
    for frame in (second, message, first):
        world.stream.on_frame(frame)
    await world.settle()
    assert (world.stream.seq, world.stream.change) == (2, 2)
    assert "resync" not in names(world)
