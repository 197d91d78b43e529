"""Reading inboxes: what a client missed, and where the heads are. Many askers share one statement."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg

from app.db.shared_statement import SharedStatement
from app.db.statements import statements
from app.errors import UnavailableError
from app.events import Message
from app.inbox import MAX_MISSED, Head, Missed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.db.pool import Database

PAGE_SIZE: Final = 100  # messages
PAGE_BYTES: Final = 128 * 1024  # of text: what a stream holds for a client that does not read
SMALL_PAGE_SIZE: Final = 10  # where the messages have so many reactions that a full one takes too long
HEAVY_SECONDS: Final = 30.0  # for so long pages are small, once one took too long
MAX_STATEMENTS: Final = 3  # at once: a storm of reconnects leaves connections for the senders
ASK_SECONDS: Final = 8.0

Ask: TypeAlias = tuple[str, int]  # a user, and the seq after which is read

_SQL = statements("inbox")


class InboxReader:
    """Gives every stream what it missed."""

    def __init__(self, database: Database) -> None:
        """Read from `database`."""
        self._database = database
        self._heavy_until = 0.0
        self._missed = SharedStatement(self._fetch_missed, max_statements=MAX_STATEMENTS, seconds=ASK_SECONDS)

    async def fetch_messages_after(self, user_id: str, seq: int) -> Missed | None:
        """Read what came after `seq`; None for a user without an inbox.

        Raises UnavailableError when PostgreSQL does not answer, or too many are asking.
        """
        missed = await self._missed.ask((user_id, seq))
        if isinstance(missed, UnavailableError):
            raise missed
        return missed

    async def fetch_heads(self, user_ids: Sequence[str]) -> dict[str, Head]:
        """Read the heads of many users in one statement. Raises UnavailableError."""
        rows = await self._database.fetch(_SQL["fetch_heads"], list(user_ids), for_streams=True)
        return {
            row["user_id"]: Head(row["database_epoch"], row["head"], row["change"], row["tokens_valid_after"])
            for row in rows
        }

    async def _fetch_missed(self, asks: Sequence[Ask]) -> Sequence[Missed | UnavailableError | None]:
        started_at = time.monotonic()
        try:
            return await self._fetch(asks, SMALL_PAGE_SIZE if started_at < self._heavy_until else PAGE_SIZE)
        except UnavailableError as error:
            if not isinstance(error.__cause__, asyncpg.QueryCanceledError):
                raise
        # Too much for one statement, and it would be the next time, too. The others must not wait with whoever it was.
        self._heavy_until = time.monotonic() + HEAVY_SECONDS
        return [await self._fetch_alone(ask, until=started_at + ASK_SECONDS) for ask in asks]

    async def _fetch_alone(self, ask: Ask, *, until: float) -> Missed | UnavailableError | None:
        problem = UnavailableError()
        for page_size in (SMALL_PAGE_SIZE, 1):
            if time.monotonic() >= until:  # nobody waits any more
                break
            try:
                return (await self._fetch([ask], page_size))[0]
            except UnavailableError as error:
                problem = error
        return problem

    async def _fetch(self, asks: Sequence[Ask], page_size: int) -> Sequence[Missed | None]:
        user_ids, seqs = [user_id for user_id, _ in asks], [seq for _, seq in asks]
        rows = await self._database.fetch(
            _SQL["fetch_messages_after"], user_ids, seqs, page_size, MAX_MISSED, PAGE_BYTES, for_streams=True
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
