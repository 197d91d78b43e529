"""A stream whose client is behind: what is read again, and what it is told of."""

from __future__ import annotations

import pytest

from app import events
from app.observability import stats
from app.services.messaging import frame_queue
from tests.model.test_head_check import opened
from tests.model.test_stream_model import NOW, World, _parsed
from tests.support.streams import Event, parse_block


def count_reads(world: World) -> list[int]:
    """Note from which seq each read of PostgreSQL begins."""
    reads: list[int] = []
    fetch = world._fetch

    async def fetch_and_count(user_id: str, seq: int):
        reads.append(seq)
        return await fetch(user_id, seq)

    world._fetch = fetch_and_count  # type: ignore[method-assign]
    return reads


def blocks(world: World) -> list[Event]:
    return [parse_block(block + b"\n\n") for block in b"".join(world.wire.written).split(b"\n\n")[:-1]]


async def test_what_queued_in_order_is_written_without_a_read():
    """Protocol 5.5: a page that is full leaves no hole behind it."""
    world = World()
    await opened(world)
    reads, repaired = count_reads(world), stats.gaps_repaired
    world.wire.readable.clear()
    queued_bytes = 0
    while queued_bytes < frame_queue.MAX_QUEUE_BYTES - 4000:
        frame = world.commit_change() if world.change * 3 < len(world.inbox) else world.commit_message()
        queued_bytes += len(frame.raw)
        world.stream.on_frame(frame)
    world.wire.readable.set()
    await world.settle()
    assert (world.stream.seq, world.stream.change) == (len(world.inbox), world.change)
    assert reads == []
    assert stats.gaps_repaired == repaired


@pytest.mark.parametrize("name", ["read_receipt", "conversation_updated"])
async def test_a_receipt_that_was_dropped_is_told_of_with_the_next_heartbeat(name: str):
    """Protocol 3.4: it is nowhere to be read again but by asking `changes`, and listing the conversations."""
    world = World()
    await opened(world)
    reads = count_reads(world)
    world.wire.readable.clear()
    dropped = stats.ephemeral_dropped
    world.stream.on_frame(_parsed(events.ephemeral_frame(name, {"a": 1})))
    assert stats.ephemeral_dropped == dropped + 1
    world.stream.beat(NOW)  # the client is still behind
    world.wire.readable.set()
    await world.settle()
    assert [block.name for block in blocks(world)][-1] == "connected"
    for _ in range(2):
        world.stream.beat(NOW)
    told, *beats = blocks(world)[-3:]
    assert (told.name, told.json["scope"], told.json["reason"]) == ("resync", "changes", "overflow")
    assert [block.name for block in beats] == ["heartbeat", "heartbeat"]
    assert reads == []


async def test_typing_that_was_dropped_is_not_told_of():
    """Protocol 3.4: it says what was true for a few seconds."""
    world = World()
    await opened(world)
    world.wire.readable.clear()
    dropped = stats.ephemeral_dropped
    world.stream.on_frame(_parsed(events.ephemeral_frame("typing_status", {"a": 1})))
    assert stats.ephemeral_dropped == dropped + 1
    world.wire.readable.set()
    await world.settle()
    world.stream.beat(NOW)
    assert [block.name for block in blocks(world)][-2:] == ["connected", "heartbeat"]
