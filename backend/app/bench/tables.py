"""Users, conversations and messages in bulk: what a profile finds before it begins."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

_BLOCKS: Final = Path(__file__).with_name("tables.sql").read_text(encoding="utf-8").split("-- name: ")[1:]
_SQL: Final = {name.strip(): sql for name, _, sql in (block.partition("\n") for block in _BLOCKS)}

ROWS_PER_STATEMENT: Final = 250_000
FEW_ROWS: Final = 200_000  # up to here indexes are kept up to date; beyond, building them afterwards is faster
OTHER_READERS: Final = 1000
_INDEXES: Final = {
    "messages_conversation_id_seq_key": ("messages", "UNIQUE (conversation_id, seq)"),
    "messages_sender_id_client_message_id_key": ("messages", "UNIQUE (sender_id, client_message_id)"),
    "messages_pkey": ("messages", "PRIMARY KEY (id)"),
    "inbox_pkey": ("inbox", "PRIMARY KEY (user_id, seq)"),
}


async def make_direct(connection: Connection, user_id: str, others: Sequence[str]) -> None:
    """Make a direct conversation of one user with each of the others."""
    async with connection.transaction():
        await connection.execute(_SQL["direct_conversations"], user_id, list(others))
        await connection.execute(_SQL["direct_members"], user_id)
    await connection.execute("ANALYZE conversations, members")


async def make_group(connection: Connection, owner: str, members: Sequence[str]) -> str:
    """Make a group; gives its id."""
    group_id = uuid.uuid4()
    await connection.execute(_SQL["group"], group_id, owner, [owner, *members])
    await connection.execute("ANALYZE conversations, members")
    return str(group_id)


async def leave_missed(connection: Connection, writer: str, *, messages: int) -> None:
    """Let `writer` have sent so many messages to everyone that it has made a direct conversation with."""
    async with connection.transaction():
        await connection.execute(_SQL["missed"], writer, messages, "while you were away" + "." * 21, timeout=60)
        await connection.execute(_SQL["missed_heads"], writer, messages)
        await connection.execute(_SQL["missed_conversations"], writer, messages)
    await connection.execute("ANALYZE messages, inbox")


async def fill_history(
    connection: Connection,
    *,
    rows: int,
    writer: str,
    askers: Sequence[str],
    others: Sequence[str],
    each: int,
    on_progress: Callable[[str], None],
) -> None:
    """Fill an empty database with `rows` messages, `each` of them to every asker, evenly spread.

    Users are there already. Only for a database of our own: indexes are dropped meanwhile.
    """
    every = rows // (len(askers) * each)
    conversations = [uuid.uuid4() for _ in others]
    await make_direct(connection, writer, askers)
    await connection.execute(
        "SET maintenance_work_mem = '512MB'; SET synchronous_commit = off; SET statement_timeout = 0"
    )
    is_large = rows > FEW_ROWS
    if is_large:
        await connection.execute(
            "DROP INDEX messages_by_rev; ALTER TABLE reactions DROP CONSTRAINT reactions_message_id_fkey"
        )
        for name, (table, _) in _INDEXES.items():
            await connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    started = time.monotonic()
    for first in range(1, rows + 1, ROWS_PER_STATEMENT):
        last = min(rows, first + ROWS_PER_STATEMENT - 1)
        await connection.execute(
            _SQL["history"], first, last, every, writer, list(askers), conversations, list(others), timeout=300
        )
        on_progress(f"{last:,} of {rows:,} messages, {time.monotonic() - started:.0f} s")
    if is_large:
        for name, (table, definition) in _INDEXES.items():
            on_progress(f"{rows:,} messages: building {name}")
            await connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}", timeout=600)
        await connection.execute(
            "CREATE INDEX messages_by_rev ON messages (conversation_id, rev); ALTER TABLE reactions "
            "ADD CONSTRAINT reactions_message_id_fkey FOREIGN KEY (message_id) REFERENCES messages (id)",
            timeout=600,
        )
    await connection.execute(_SQL["heads_of_history"], timeout=300)
    await connection.execute("VACUUM ANALYZE", timeout=600)
    # Everything that was put off is done now, and not while it is measured.
    await connection.execute("CHECKPOINT", timeout=600)
