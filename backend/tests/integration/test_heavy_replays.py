"""Messages with so many reactions that reading them takes longer than a statement may: nobody else waits with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.db import pool
from app.db.inbox import SMALL_PAGE_SIZE, InboxReader
from app.db.pool import Database
from app.inbox import Missed
from tests.missed import fill, make_users

USERS, MESSAGES = 1000, 40

REACT = """
INSERT INTO reactions (message_id, user_id, emoji)
SELECT messages.id, users.id, emoji FROM messages, users, unnest(ARRAY['+', '-']) AS emoji
"""


@pytest.fixture
async def database(database_url: str, connection: asyncpg.Connection, monkeypatch) -> AsyncIterator[Database]:
    """A database in which what the first user missed takes longer to read than a statement may."""
    await make_users(connection, USERS)
    await fill(connection, MESSAGES, USERS, readers=1)
    await connection.execute(REACT)
    took_seconds = await _seconds_of_all(connection)
    monkeypatch.setitem(pool.SESSION_SETTINGS, "statement_timeout", str(int(took_seconds * 1000 / 2)))
    database = Database(database_url)
    try:
        yield database
    finally:
        await database.close()


async def _seconds_of_all(connection: asyncpg.Connection) -> float:
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    assert await connection.fetchval("SELECT sum(jsonb_array_length(reactions)) FROM message_states") == 2 * MESSAGES
    return loop.time() - started_at


async def test_who_asks_for_too_much_at_once_gets_it_in_parts_and_others_do_not_wait(database):
    """Protocol 5.2: one statement answers many; one of them must not cost all the others their answer."""
    reader = InboxReader(database)
    asks = [reader.fetch_messages_after(f"user-{n}", 0) for n in range(1, 31)]
    mine, *others = await asyncio.gather(*asks)
    assert [one.messages for one in others if isinstance(one, Missed)] == [[]] * 29
    seqs: list[int] = []
    while mine is not None and mine.head > len(seqs):
        new = [seq for seq, message in mine.messages if message is not None and len(message.reactions) == 2]
        assert 1 <= len(new) <= SMALL_PAGE_SIZE
        seqs += new
        mine = await reader.fetch_messages_after("user-1", len(seqs))
    assert seqs == list(range(1, MESSAGES + 1))
