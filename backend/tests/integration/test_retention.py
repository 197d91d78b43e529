"""Retention on a real PostgreSQL: what it takes, what it leaves, and what it reads to find out."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.db.inbox import Trimmed, trim
from app.db.pool import SESSION_SETTINGS, Database
from app.main import _kept_running
from app.services.retention import _trim_in_pieces, keep_trimming
from tests.support.proxy import TcpProxy

USERS = 30
DAYS = 10

DAY = """
WITH moved AS (
    UPDATE inbox_heads SET head = head + $1 RETURNING user_id, head
)
INSERT INTO inbox (user_id, seq, message_id, created_at)
SELECT user_id, head - $1 + n, gen_random_uuid(), now() - make_interval(days => $2)
FROM moved, generate_series(1, $1::integer) AS n ORDER BY n, user_id
"""
READ = """
SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = 'inbox'
"""
EXPLAIN_PIECE = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM trim_inboxes('', 10, 200, 100)"
IS_MIXED = """
SELECT bool_or(is_back) FROM (
    SELECT created_at < lag(created_at) OVER (ORDER BY ctid) AS is_back FROM inbox
) AS by_place
"""
LEFT = """
SELECT h.user_id, count(*) AS n, min(i.seq) AS lowest, max(i.seq) AS highest, h.head
FROM inbox_heads AS h JOIN inbox AS i USING (user_id) GROUP BY h.user_id, h.head ORDER BY h.user_id
"""


@pytest.fixture
async def database(database_url: str, connection: asyncpg.Connection) -> AsyncIterator[Database]:
    """Users with empty inboxes; one connection, so that what it has read can be counted."""
    await connection.execute("INSERT INTO users (id) SELECT 'user-' || n FROM generate_series(10, $1) AS n", 9 + USERS)
    await connection.execute("INSERT INTO inbox_heads (user_id) SELECT id FROM users")
    await connection.execute("ALTER TABLE inbox SET (autovacuum_enabled = off)")
    database = Database(database_url, max_size=1)
    yield database
    await database.close()


async def _piece(
    database: Database, *, days: int = DAYS, users: int = 7, rows: int = 50, pause: float = 0
) -> Trimmed | None:
    return await trim(database, days=days, max_users=users, max_rows=rows, pause_seconds=pause, rest_seconds=pause)


async def _round(database: Database, **most: int) -> list[int]:
    """Visit all users; give the rows of each piece."""
    removed = []
    while True:
        piece = await _piece(database, **most)
        assert piece is not None
        removed.append(piece.rows)
        if piece.is_end:
            return removed


async def _rows_read(database: Database, connection: asyncpg.Connection) -> int:
    await database.fetchval("SELECT pg_stat_force_next_flush()")
    await database.fetchval("SELECT 1")
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    return await connection.fetchval(READ)


async def test_what_it_reads_does_not_grow_where_new_rows_go_into_old_pages(database, connection):
    """Protocol 6.2: the cycle of many days. With nothing to remove it looks at one row of each user."""
    for age in range(40, 0, -1):  # every day: new rows come, old ones go, VACUUM gives their places to the next
        await connection.execute(DAY, 17, age)
        assert sum(await _round(database, days=age + DAYS, rows=1000)) in {0, 17 * USERS}
        await connection.execute("VACUUM inbox")
    assert await connection.fetchval(IS_MIXED), "nothing was written where old rows had been"
    before = await _rows_read(database, connection)
    assert sum(await _round(database, days=DAYS + 1)) == 0
    read = await _rows_read(database, connection) - before
    assert await connection.fetchval("SELECT count(*) FROM inbox") == 17 * USERS * DAYS
    assert read <= 2 * USERS, f"{read} rows were read"


@pytest.mark.parametrize("users, rows", [(7, 50), (1, 1000), (1000, 3), (1000, 1)])
async def test_every_inbox_loses_its_old_end_in_bounded_pieces(database, connection, users, rows):
    """Protocol 6.2: and nothing else, wherever a piece ends."""
    await connection.execute(DAY, 5, DAYS + 1)
    await connection.execute(DAY, 4, 1)
    await connection.execute("UPDATE inbox_heads SET head = 0 WHERE user_id = 'user-12'")
    await connection.execute("DELETE FROM inbox WHERE user_id = 'user-12'")
    removed = await _round(database, users=users, rows=rows)
    assert sum(removed) == 5 * (USERS - 1)
    assert max(removed) <= rows
    left = await connection.fetch(LEFT)
    assert {(row["n"], row["lowest"], row["highest"]) for row in left} == {(4, 6, 9)}
    assert len(left) == USERS - 1


async def test_the_newest_row_stays_however_old(database, connection):
    await connection.execute(DAY, 5, DAYS + 1)
    await _round(database)
    assert {(row["n"], row["highest"]) for row in await connection.fetch(LEFT)} == {(1, 5)}


async def test_it_stops_at_the_first_recent_row_so_that_no_hole_is_left(database, connection):
    """Protocol 1.2: rows of two batches may be dated against their order."""
    await connection.execute(DAY, 9, DAYS + 1)
    await connection.execute("UPDATE inbox SET created_at = now() WHERE seq = 4")
    await _round(database)
    assert {(row["n"], row["lowest"]) for row in await connection.fetch(LEFT)} == {(6, 4)}


async def test_rows_from_a_clock_that_was_far_ahead_keep_nothing_back(database, connection):
    await connection.execute(DAY, 9, DAYS + 1)
    await connection.execute("UPDATE inbox SET created_at = now() + interval '5 years' WHERE seq IN (1, 2, 4)")
    await connection.execute("UPDATE inbox SET created_at = now() WHERE seq > 7")
    await connection.execute("UPDATE retention SET next_at = now() + interval '5 years'")
    await _round(database)
    assert {(row["n"], row["lowest"]) for row in await connection.fetch(LEFT)} == {(2, 8)}


async def test_a_clock_that_is_behind_removes_nothing_that_is_fresh(database, connection):
    """Protocol 6.2: neither from inboxes at rest, nor from those into which it has written since."""
    await connection.execute(DAY, 9, -30)
    await connection.execute("UPDATE inbox SET created_at = now() WHERE user_id > 'user-20' AND seq = 9")
    await connection.execute("UPDATE retention SET next_at = now() + interval '30 days'")
    assert sum(await _round(database)) == 0
    # What it has written itself is old one day, and then so is what is behind that.
    await connection.execute("UPDATE inbox SET created_at = now() - interval '11 days' WHERE seq = 5")
    assert sum(await _round(database)) == 5 * USERS


async def test_inboxes_full_of_rows_from_the_future_are_passed_in_bounded_pieces(database, connection):
    await connection.execute(DAY, 20, -30)
    before = await _rows_read(database, connection)
    assert len(await _round(database, users=1000, rows=30)) >= 19 * USERS / 30
    assert await _rows_read(database, connection) - before <= USERS * (20 + 1) * 2


async def test_what_a_piece_reads_is_bounded_whatever_the_backlog(database, connection):
    """Protocol 6.2: it must come to an end on a cold disk, where each row is a page."""
    await connection.execute(DAY, 400, DAYS + 1)  # all inboxes of one time lie side by side: the worst case
    await connection.execute(DAY, 1, 0)
    [explained] = json.loads(await database.fetchval(EXPLAIN_PIECE))
    buffers = explained["Plan"]["Shared Hit Blocks"] + explained["Plan"]["Shared Read Blocks"]
    assert buffers < 100 * 20, f"{buffers} pages were touched for 100 rows"
    assert sum(await _round(database, rows=1000)) == 400 * USERS - 100
    assert {(row["n"], row["lowest"]) for row in await connection.fetch(LEFT)} == {(1, 401)}


async def test_a_piece_that_takes_too_long_is_halved(database, connection, monkeypatch):
    """Protocol 6.2: else the same one would be tried again and again, and nothing ever be removed."""
    await connection.execute(DAY, 5, DAYS + 1)
    await connection.execute(
        """
        CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.01); RETURN OLD; END';
        CREATE TRIGGER slow BEFORE DELETE ON inbox FOR EACH ROW EXECUTE FUNCTION be_slow();
        """
    )
    monkeypatch.setitem(SESSION_SETTINGS, "statement_timeout", "300")
    slow = Database(database.url, max_size=1)
    try:
        await _trim_in_pieces(slow, DAYS)
    finally:
        await slow.close()
    assert {(row["n"], row["highest"]) for row in await connection.fetch(LEFT)} == {(1, 5)}


async def test_of_several_processes_one_trims_and_the_next_goes_on_where_it_was(database_url, database, connection):
    await connection.execute(DAY, 5, DAYS + 1)
    other = Database(database_url, max_size=1)
    try:
        async with connection.transaction():
            await connection.fetch("SELECT * FROM retention FOR UPDATE")
            assert await asyncio.wait_for(_piece(database), 1) is None  # it does not wait either
        first = await _piece(database, pause=0.2)
        assert first == Trimmed(28, is_end=False)
        assert await _piece(other) is None
        await asyncio.sleep(0.25)
        assert sum(await _round(other)) == 4 * USERS - 28
    finally:
        await other.close()
    assert await connection.fetchval("SELECT after_user_id FROM retention") == ""


async def test_a_piece_that_postgresql_does_not_answer_is_cancelled_at_once(database_url, database, connection):
    """Protocol 7.1: nor is the end of the process taken for one more time-out, after which it would go on."""
    port = int(re.findall(r":(\d+)/", database_url)[0])
    async with TcpProxy(port) as proxy:
        stalled = Database(re.sub(r":\d+/", f":{proxy.port}/", database_url), max_size=1)
        await connection.execute("BEGIN; LOCK TABLE inbox IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(10), _kept_running(lambda: keep_trimming(stalled, days=DAYS)):
            while not await database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
            proxy.hold()
            began_at = time.monotonic()
        assert time.monotonic() - began_at < 1
        await stalled.close(0)
        await connection.execute("ROLLBACK")


async def test_who_is_cancelled_while_something_else_fails_is_cancelled(database):
    """What catches UnavailableError and goes on would go on for ever."""

    async def work() -> None:
        async with database.acquire():
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                raise asyncpg.InterfaceError("lost") from None

    task = asyncio.create_task(work())
    while not database._lent:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
