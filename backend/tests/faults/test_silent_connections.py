"""Connections to PostgreSQL that neither answer nor break: each use of one ends, and one time-out is enough."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.db.pool import COMMAND_SECONDS, FOR_STREAMS, USE_SECONDS, Database
from app.errors import UnavailableError
from tests.faults.kit.link import Link

pytestmark = [pytest.mark.faults, pytest.mark.slow]

POOL = 4  # what is not kept for streams


@pytest.fixture
async def link(database_url: str) -> AsyncIterator[Link]:
    async with Link(int(re.findall(r":(\d+)/", database_url)[0])) as link:
        yield link


@pytest.fixture
async def database(database_url: str, link: Link) -> AsyncIterator[Database]:
    """A pool whose connections have all been made."""
    database = Database(re.sub(r":\d+/", f":{link.port}/", database_url), max_size=POOL + FOR_STREAMS)
    await asyncio.gather(*(database.fetchval("SELECT pg_sleep(0.2)") for _ in range(POOL)))
    assert len(link.pairs) == POOL
    try:
        yield database
    finally:
        link.heal()
        await database.close()


def _forget_connections(link: Link) -> None:
    """Answer nothing on those that there are; new ones are well."""
    forgotten = set(link.pairs)
    link.only = forgotten.__contains__
    link.freeze()


async def test_one_time_out_drops_every_idle_connection(database, link, meter):
    """Protocol 8.2: all are of the same network; tried one after the other they would cost a time-out each."""
    _forget_connections(link)
    started = time.monotonic()
    with pytest.raises(UnavailableError):
        await database.fetchval("SELECT 1")
    assert time.monotonic() - started < COMMAND_SECONDS + 0.4 + meter.longest(), (
        "it waited for an answer to a cancellation, too"
    )
    started = time.monotonic()
    assert await asyncio.gather(*(database.fetchval("SELECT $1::int", number) for number in range(POOL))) == [
        0,
        1,
        2,
        3,
    ]
    assert time.monotonic() - started < COMMAND_SECONDS / 2 + meter.longest()


async def test_a_connection_in_use_is_left_to_its_user(database, link):
    """Protocol 8.2: what still works for somebody else is not taken from him."""
    async with database.acquire() as mine:
        healthy = {pair for pair in link.pairs if await _serves(pair, mine)}
        assert len(healthy) == 1
        forgotten = set(link.pairs) - healthy
        link.only = forgotten.__contains__
        link.freeze()
        with pytest.raises(UnavailableError):
            await database.fetchval("SELECT 1")
        assert await mine.fetchval("SELECT 1") == 1


async def test_a_transaction_on_a_silent_connection_ends_in_time(database, link, meter):
    """Protocol 2.5, 8.2: nor does it wait for its rollback."""

    async def work() -> None:
        async for transaction in database.transactions():
            async with transaction as connection:
                await connection.fetchval("SELECT 1")
                _forget_connections(link)
                await connection.fetchval("SELECT 2")

    started = time.monotonic()
    with pytest.raises(UnavailableError):
        await work()
    assert time.monotonic() - started < USE_SECONDS + 0.4 + meter.longest()


async def test_many_slow_statements_together_end_in_time(database, meter):
    """Protocol 2.5, 8.2: each is within its own time, the sum is not."""

    async def work() -> None:
        async with database.acquire() as connection:
            for _ in range(5):
                await connection.fetchval("SELECT pg_sleep(1.5)")

    started = time.monotonic()
    with pytest.raises(UnavailableError):
        await work()
    assert time.monotonic() - started < USE_SECONDS + 0.4 + meter.longest()
    assert await database.fetchval("SELECT 1") == 1


async def test_who_gives_up_costs_his_own_connection_alone(database, link):
    """A cancelled task says nothing of the network."""
    before = set(link.pairs)
    task = asyncio.create_task(database.fetchval("SELECT pg_sleep(2)"))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        while len(before & link.pairs) != POOL - 1:
            await asyncio.sleep(0.01)
    assert await database.fetchval("SELECT 1") == 1


async def _serves(pair, connection: asyncpg.Connection) -> bool:
    """Whether a connection goes through this pair."""
    port = await connection.fetchval("SELECT inet_client_port()")
    transport = pair.far.transport
    return transport is not None and transport.get_extra_info("sockname")[1] == port
