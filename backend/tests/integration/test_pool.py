"""Who gets a connection: requests share most of the pool, and the rest is kept for streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from app import deadline
from app.db.inbox import InboxReader
from app.db.migrate import current_revision, newest_revision
from app.db.pool import ACQUIRE_SECONDS, FOR_STREAMS, Database
from app.db.users import UserReader
from app.errors import UnavailableError

FOR_REQUESTS = 3
SLEEPING = "FROM pg_stat_activity WHERE query = 'SELECT pg_sleep($1)' AND state = 'active'"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, max_size=FOR_REQUESTS + FOR_STREAMS)
    try:
        yield database
    finally:
        await database.close()


async def _ask(database: Database, seconds: float, *, within: float = 5, for_streams: bool = False) -> None:
    with deadline.within(within):
        await database.fetchval("SELECT pg_sleep($1)", seconds, for_streams=for_streams)


async def _until_asking(connection: asyncpg.Connection, count: int) -> None:
    async with asyncio.timeout(5):
        while await connection.fetchval(f"SELECT count(*) {SLEEPING}") < count:
            await asyncio.sleep(0.01)


async def test_behind_requests_that_wait_for_connections_no_stream_waits(database, connection, meter):
    """Protocol 4.7: a stream that opens or catches up has connections that no request takes."""
    requests = [asyncio.create_task(_ask(database, 1)) for _ in range(20 * FOR_REQUESTS)]
    try:
        await _until_asking(connection, FOR_REQUESTS)
        started = time.monotonic()
        for _ in range(20):
            asked = (database.fetchval("SELECT 7", for_streams=True) for _ in range(FOR_STREAMS))
            assert await asyncio.gather(*asked) == [7, 7]
        with deadline.within(1):  # nor does a probe, which would take a busy process for a dead one
            assert await current_revision(database) == newest_revision()
        assert await UserReader(database).find("nobody") is None
        assert await InboxReader(database).fetch_heads(["nobody"]) == {}
        assert time.monotonic() - started < 0.5 + meter.longest()
        assert await connection.fetchval(f"SELECT count(*) {SLEEPING}") <= FOR_REQUESTS
    finally:
        outcomes = await asyncio.gather(*requests, return_exceptions=True)
    served = outcomes.count(None)
    assert sum(isinstance(outcome, UnavailableError) for outcome in outcomes) == len(requests) - served
    assert FOR_REQUESTS <= served <= FOR_REQUESTS * (2 + ACQUIRE_SECONDS + meter.longest())


async def test_streams_use_what_no_request_uses(database, connection):
    """What is kept for them is a floor, not a bound."""
    everything = FOR_REQUESTS + FOR_STREAMS
    asking = [asyncio.create_task(_ask(database, 1, for_streams=True)) for _ in range(everything)]
    await _until_asking(connection, everything)
    await asyncio.gather(*asking)


@pytest.mark.parametrize("how", ["out of time", "cancelled in line", "cancelled at work", "cut"])
async def test_who_goes_away_leaves_his_place_to_the_next(database, connection, how):
    """However a request ends, as many as before are served at once after it."""
    at_work = [asyncio.create_task(_ask(database, 0.5)) for _ in range(FOR_REQUESTS)]
    await _until_asking(connection, FOR_REQUESTS)
    in_line = [asyncio.create_task(_ask(database, 0, within=0.1)) for _ in range(2)]
    await asyncio.sleep(0)
    if how == "cut":
        await connection.fetch(f"SELECT pg_terminate_backend(pid) {SLEEPING}")
    elif how.startswith("cancelled"):
        for task in at_work if how == "cancelled at work" else in_line:
            task.cancel()
    await asyncio.gather(*at_work, *in_line, return_exceptions=True)
    asking = [asyncio.create_task(_ask(database, 0.5)) for _ in range(FOR_REQUESTS)]
    await _until_asking(connection, FOR_REQUESTS)
    await asyncio.gather(*asking)


async def test_what_is_on_its_way_back_is_not_taken_for_idle(database):
    """Protocol 8.2: what was committed on a connection is not answered 503 because another one is silent."""
    async with database.acquire() as connection:
        backend = connection.get_server_pid()
        asyncio.get_running_loop().call_soon(database._drop_idle)
    assert await database.fetchval("SELECT pg_backend_pid()") == backend
    database._drop_idle()
    assert await database.fetchval("SELECT pg_backend_pid()") != backend
