"""Retention takes the old end of an inbox: who comes back from before it is told."""

from __future__ import annotations

import pytest

from app.db.inbox import PAGE_SIZE, Trimmed, trim
from app.db.pool import Database
from tests.support.servers import new_user

pytestmark = pytest.mark.faults


async def _inbox_of(server, connection, kept: int) -> tuple[str, str]:
    """Make bob an inbox of `kept` recent messages behind ten that are past retention."""
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    for number in range(10):
        await server.send(ada, bob, f"old {number}")
    await connection.execute("UPDATE inbox SET created_at = now() - interval '100 days' WHERE user_id = $1", bob)
    for number in range(kept):
        await server.send(ada, bob, f"new {number}")
    return ada, bob


@pytest.mark.parametrize("kept", [3, PAGE_SIZE + 20], ids=["less than a page", "more than a page"])
async def test_a_cursor_from_before_retention_is_answered_with_resync(
    server, open_stream, connection, database_url, kept
):
    """Protocol 4.4, 6.2: however much is left, what was removed is never skipped in silence."""
    ada, bob = await _inbox_of(server, connection, kept)
    epoch = (await open_stream(server, bob)).events[-1].json["cursor"].partition(".")[0]
    database = Database(database_url)
    try:
        await connection.execute("UPDATE retention SET next_at = now()")  # the server has been at it
        trimmed = await trim(database, days=90, max_users=10, max_rows=1000, pause_seconds=0, rest_seconds=0)
        assert trimmed == Trimmed(10, is_end=True)
    finally:
        await database.close()

    stale = await open_stream(server, bob, cursor=f"{epoch}.4")
    assert stale.events[-1].json["recovered"] is False
    resync = await stale.until("resync")
    assert (resync.json["scope"], resync.json["reason"]) == ("all", "retention")
    await server.send(ada, bob, "live")
    assert [m["content"] for m in await stale.messages(1)] == ["live"]
    assert stale.seqs == [10 + kept + 1]

    # The first that is left can still be replayed from.
    fresh = await open_stream(server, bob, cursor=f"{epoch}.10")
    assert fresh.events[-1].json["recovered"] is True
    await fresh.messages(kept + 1)
    assert fresh.seqs == list(range(11, 10 + kept + 2))


async def test_a_hole_inside_an_inbox_is_never_skipped(server, open_stream, connection):
    """Protocol 1.2: rows of two batches may be dated against their order, and retention goes by date."""
    _, bob = await _inbox_of(server, connection, 2 * PAGE_SIZE + 60)
    epoch = (await open_stream(server, bob)).events[-1].json["cursor"].partition(".")[0]
    await connection.execute("DELETE FROM inbox WHERE user_id = $1 AND seq = $2", bob, PAGE_SIZE + 15)
    stream = await open_stream(server, bob, cursor=f"{epoch}.2")
    resync = await stream.until("resync")
    assert resync.json["reason"] == "retention"
    assert stream.seqs == list(range(3, PAGE_SIZE + 3))  # the page that was whole
