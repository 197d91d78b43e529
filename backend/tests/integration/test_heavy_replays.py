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

USERS, MESSAGES = 1000, 40

FILL = """
WITH made AS (
    INSERT INTO conversations (id, kind, title, created_by, last_seq, rev)
    VALUES (gen_random_uuid(), 'group', 'a group', 'user-1', $1, $1) RETURNING id
), joined AS (
    INSERT INTO members (conversation_id, user_id, role)
    SELECT made.id, 'user-' || n, CASE WHEN n = 1 THEN 'owner' ELSE 'member' END
    FROM made, generate_series(1, $2::integer) AS n
), sent AS (
    INSERT INTO messages
        (id, conversation_id, seq, rev, sender_id, client_message_id, request_hash, content, created_at)
    SELECT gen_random_uuid(), made.id, n, n, 'user-1', gen_random_uuid(), '\\x', 'hello', now()
    FROM made, generate_series(1, $1::integer) AS n RETURNING id, seq
), moved AS (
    UPDATE inbox_heads SET head = $1 WHERE user_id = 'user-1'
), listed AS (
    INSERT INTO inbox (user_id, seq, message_id, created_at) SELECT 'user-1', sent.seq, sent.id, now() FROM sent
)
INSERT INTO reactions (message_id, user_id, emoji)
SELECT sent.id, 'user-' || n, emoji FROM sent, generate_series(1, $2::integer) AS n, unnest(ARRAY['+', '-']) AS emoji
"""


@pytest.fixture
async def database(database_url: str, connection: asyncpg.Connection, monkeypatch) -> AsyncIterator[Database]:
    """A database in which what the first user missed takes longer to read than a statement may."""
    names = [f"user-{n}" for n in range(1, USERS + 1)]
    await connection.execute("INSERT INTO users (id) SELECT unnest($1::text[])", names)
    await connection.execute("INSERT INTO inbox_heads (user_id) SELECT unnest($1::text[])", names)
    await connection.execute(FILL, MESSAGES, USERS)
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
