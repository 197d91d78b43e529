"""A group whose messages nobody has read yet, put straight into the tables: for tests of what a replay costs."""

from __future__ import annotations

import asyncpg

_FILL = """
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
    UPDATE inbox_heads SET head = $1 WHERE user_id IN (SELECT 'user-' || n FROM generate_series(1, $3::integer) AS n)
)
INSERT INTO inbox (user_id, seq, message_id, created_at)
SELECT 'user-' || n, sent.seq, sent.id, now() FROM sent, generate_series(1, $3::integer) AS n
"""


async def make_users(connection: asyncpg.Connection, count: int) -> list[str]:
    """Make `user-1` and so on, with empty inboxes. Returns their ids."""
    names = [f"user-{n}" for n in range(1, count + 1)]
    await connection.execute("INSERT INTO users (id) SELECT unnest($1::text[])", names)
    await connection.execute("INSERT INTO inbox_heads (user_id) SELECT unnest($1::text[])", names)
    return names


async def fill(connection: asyncpg.Connection, messages: int, members: int, *, readers: int | None = None) -> None:
    """Make a group of the first `members` users, and so many messages in the inboxes of the first `readers` of them."""
    await connection.execute(_FILL, messages, members, members if readers is None else readers)
