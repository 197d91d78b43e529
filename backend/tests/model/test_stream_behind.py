"""A stream whose client is behind: what is read again, and what it is told of."""

from __future__ import annotations

from app.observability import stats
from app.services.messaging import sse_stream
from tests.model.test_head_check import opened
from tests.model.test_stream_model import World


def count_reads(world: World) -> list[int]:
    """Note from which seq each read of PostgreSQL begins."""
    reads: list[int] = []
    fetch = world._fetch

    async def fetch_and_count(user_id: str, seq: int):
        reads.append(seq)
        return await fetch(user_id, seq)

    world._fetch = fetch_and_count  # type: ignore[method-assign]
    return reads


async def test_what_queued_in_order_is_written_without_a_read():
    """Protocol 5.5: a page that is full leaves no hole behind it."""
    world = World()
    await opened(world)
    reads, repaired = count_reads(world), stats.gaps_repaired
    world.wire.readable.clear()
    queued_bytes = 0
    while queued_bytes < sse_stream.MAX_QUEUE_BYTES - 4000:
        frame = world.commit_change() if world.change * 3 < len(world.inbox) else world.commit_message()
        queued_bytes += len(frame.raw)
        world.stream.on_frame(frame)
    world.wire.readable.set()
    await world.settle()
    assert (world.stream.seq, world.stream.change) == (len(world.inbox), world.change)
    assert reads == []
    assert stats.gaps_repaired == repaired
