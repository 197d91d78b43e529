"""Reading inboxes: what a client missed, and where the heads are. Many askers share one statement."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from app.db.shared_statement import SharedStatement
from app.db.statements import statements
from app.events import Message
from app.inbox import MAX_MISSED, Head, Missed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from app.db.pool import Database

PAGE_SIZE: Final = 100  # messages
PAGE_BYTES: Final = 128 * 1024  # of text: what a stream holds for a client that does not read
MAX_STATEMENTS: Final = 3  # at once: a storm of reconnects leaves connections for the senders
ASK_SECONDS: Final = 8.0

_SQL = statements("inbox")


class InboxReader:
    """Gives every stream what it missed."""

    def __init__(self, database: Database) -> None:
        """Read from `database`."""
        self._database = database
        self._missed = SharedStatement(self._fetch_missed, max_statements=MAX_STATEMENTS, seconds=ASK_SECONDS)

    async def fetch_messages_after(self, user_id: str, seq: int) -> Missed | None:
        """Read what came after `seq`; None for a user without an inbox.

        Raises UnavailableError when PostgreSQL does not answer, or too many are asking.
        """
        return await self._missed.ask((user_id, seq))

    async def fetch_heads(self, user_ids: Sequence[str]) -> dict[str, Head]:
        """Read the heads of many users in one statement. Raises UnavailableError."""
        rows = await self._database.fetch(_SQL["fetch_heads"], list(user_ids))
        return {
            row["user_id"]: Head(row["database_epoch"], row["head"], row["change"], row["tokens_valid_after"])
            for row in rows
        }

    async def _fetch_missed(self, asks: Sequence[tuple[str, int]]) -> list[Missed | None]:
        user_ids, seqs = [user_id for user_id, _ in asks], [seq for _, seq in asks]
        rows = await self._database.fetch(
            _SQL["fetch_messages_after"], user_ids, seqs, PAGE_SIZE, MAX_MISSED, PAGE_BYTES
        )
        found = {ask: list(group) for ask, group in groupby(rows, key=itemgetter("ask"))}
        return [_missed(found[place]) if place in found else None for place in range(1, len(asks) + 1)]


def _missed(rows: Sequence[asyncpg.Record]) -> Missed:
    first = rows[0]
    messages = [
        (row["inbox_seq"], Message.from_row(row) if row["is_readable"] else None)
        for row in rows
        if row["inbox_seq"] is not None
    ]
    return Missed(first["database_epoch"], first["head"], first["change"], first["tokens_valid_after"], messages)


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What one piece of retention did: how many rows it removed, and whether all users have been visited."""

    rows: int
    is_end: bool


async def trim(
    database: Database, *, days: int, max_users: int, max_rows: int, pause_seconds: float, rest_seconds: float
) -> Trimmed | None:
    """Remove entries older than `days` from the next inboxes; None when it is another process' turn, or nobody's.

    The next piece may come after `pause_seconds`, the next round after `rest_seconds`, from any process.
    A cursor below what was removed is answered with `resync`. Raises UnavailableError.
    """
    async with database.transaction() as connection:
        after_user_id = await connection.fetchval(_SQL["take_turn_to_trim"])
        if after_user_id is None:
            return None
        row: Any = await connection.fetchrow(_SQL["trim"], after_user_id, days, max_users, max_rows)
        trimmed = Trimmed(row["removed_rows"], row["is_end"])
        goes_on_after = "" if trimmed.is_end else row["after_user_id"]
        await connection.execute(_SQL["note_trimmed"], goes_on_after, rest_seconds if trimmed.is_end else pause_seconds)
        return trimmed
