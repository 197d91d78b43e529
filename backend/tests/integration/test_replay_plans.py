"""How PostgreSQL reads what a client missed: by index, whatever the tables held when a process began."""

from __future__ import annotations

import pytest

from app.db.inbox import InboxReader
from app.db.pool import Database
from tests.missed import fill, make_users

USERS, MESSAGES, PAGE = 200, 150, 100
UNTIL_A_PLAN_IS_KEPT = 8  # PostgreSQL plans anew five times, then keeps one plan

READ = """
SELECT relname, coalesce(seq_tup_read, 0) AS by_reading_all, coalesce(idx_tup_fetch, 0) AS by_index
FROM pg_stat_user_tables WHERE relname IN ('inbox', 'inbox_heads', 'messages', 'members', 'users')
"""


@pytest.mark.parametrize("is_analyzed", [True, False])
async def test_a_replay_reads_the_rows_that_it_gives_and_no_others(database_url, connection, is_analyzed):
    """Protocol 5.2: also where the first clients came to empty tables, whose statistics are from then, or none."""
    names = await make_users(connection, USERS)
    if is_analyzed:
        await connection.execute("ANALYZE")
    database = Database(database_url, max_size=1)
    try:
        reader = InboxReader(database)
        for _ in range(UNTIL_A_PLAN_IS_KEPT):
            nothing = await reader.fetch_messages_after(names[0], 0)
            assert nothing is not None
            assert nothing.head == 0
        await fill(connection, MESSAGES, USERS)
        before = await _reads(database, connection)
        missed = await reader.fetch_messages_after(names[-1], 0)
        assert missed is not None
        assert [seq for seq, message in missed.messages if message is not None] == list(range(1, PAGE + 1))
        after = await _reads(database, connection)
    finally:
        await database.close()
    for table, (read, fetched) in after.items():
        assert read == before[table][0], f"all of {table} was read"
        assert fetched - before[table][1] <= 4 * MESSAGES, f"{fetched} rows of {table}"


async def _reads(database: Database, connection) -> dict[str, tuple[int, int]]:
    await database.fetchval("SELECT pg_stat_force_next_flush()")
    await database.fetchval("SELECT 1")
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    return {row["relname"]: (row["by_reading_all"], row["by_index"]) for row in await connection.fetch(READ)}
