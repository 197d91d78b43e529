"""Reading inboxes: what a client missed, and where the heads are. Many askers share one statement."""

from __future__ import annotations

import asyncio
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from app.db.statements import statements
from app.errors import UnavailableError
from app.events import Message
from app.inbox import MAX_MISSED, Head, Missed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from app.db.pool import Database

PAGE_SIZE: Final = 100  # messages
PAGE_BYTES: Final = 128 * 1024  # of text: what a stream holds for a client that does not read
MAX_ASKERS: Final = 50  # of one statement
MAX_STATEMENTS: Final = 3  # at once: a storm of reconnects leaves connections for the senders
MAX_ASKING: Final = 20_000
ASK_SECONDS: Final = 8.0

_TRIM_LOCK: Final = 0x6741504D

_SQL = statements("inbox")

_Ask = tuple[str, int, "asyncio.Future[Missed | None]"]


class InboxReader:
    """Gives every stream what it missed; those who ask while a statement runs share the next one."""

    def __init__(self, database: Database) -> None:
        """Read from `database`."""
        self._database = database
        self._asks: list[_Ask] = []
        self._running: set[asyncio.Task[None]] = set()

    async def fetch_messages_after(self, user_id: str, seq: int) -> Missed | None:
        """Read what came after `seq`; None for a user without an inbox.

        Raises UnavailableError when PostgreSQL does not answer, or too many are asking.
        """
        if len(self._asks) >= MAX_ASKING:
            raise UnavailableError
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Missed | None] = loop.create_future()
        self._asks.append((user_id, seq, future))
        # One turn of the loop later: those who ask in the same turn share the statement.
        loop.call_soon(self._start)
        expiry = loop.call_later(ASK_SECONDS, _give_up, future)
        try:
            return await future
        finally:
            expiry.cancel()

    async def fetch_heads(self, user_ids: Sequence[str]) -> dict[str, Head]:
        """Read the heads of many users in one statement. Raises UnavailableError."""
        rows = await self._database.fetch(_SQL["fetch_heads"], list(user_ids))
        return {
            row["user_id"]: Head(row["database_epoch"], row["head"], row["change"], row["tokens_valid_after"])
            for row in rows
        }

    def _start(self) -> None:
        while self._asks and len(self._running) < MAX_STATEMENTS:
            batch, self._asks = self._asks[:MAX_ASKERS], self._asks[MAX_ASKERS:]
            task = asyncio.get_running_loop().create_task(self._answer(batch))
            self._running.add(task)
            task.add_done_callback(self._on_answered)

    def _on_answered(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._start()

    async def _answer(self, batch: list[_Ask]) -> None:
        batch = [ask for ask in batch if not ask[2].done()]  # who has given up is not read for
        try:
            user_ids, seqs = [ask[0] for ask in batch], [ask[1] for ask in batch]
            rows = await self._database.fetch(
                _SQL["fetch_messages_after"], user_ids, seqs, PAGE_SIZE, MAX_MISSED, PAGE_BYTES
            )
            found = {ask: list(group) for ask, group in groupby(rows, key=itemgetter("ask"))}
            answers = [_missed(found[place]) if place in found else None for place in range(1, len(batch) + 1)]
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            for _, _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, _, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)


def _give_up(future: asyncio.Future[Missed | None]) -> None:
    if not future.done():
        future.set_exception(UnavailableError())


def _missed(rows: Sequence[asyncpg.Record]) -> Missed:
    first = rows[0]
    messages = [
        (row["inbox_seq"], Message.from_row(row) if row["is_readable"] else None)
        for row in rows
        if row["inbox_seq"] is not None
    ]
    return Missed(first["database_epoch"], first["head"], first["change"], first["tokens_valid_after"], messages)


async def trim(database: Database, *, days: int, max_rows: int) -> int:
    """Remove entries older than `days`, at most `max_rows`; 0 when another process is at it.

    A cursor below what was removed is answered with `resync`. Raises UnavailableError.
    """
    async with database.acquire() as connection, connection.transaction():
        if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _TRIM_LOCK):
            return 0
        status = await connection.execute(_SQL["trim"], days, max_rows)
        return int(status.removeprefix("DELETE "))
