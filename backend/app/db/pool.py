"""The connections to PostgreSQL, each with a bound on everything it may wait for.

Deadlines nest, so that the innermost one speaks first and the connection stays usable:
lock 2 s < statement 3 s < command 4 s < use of a connection 4.5 s < request 5 s. A request uses connections one
after the other: none is lent past its deadline (app/deadline.py), and what was begun before goes on.

Some of the pool is kept for what no stream can do without: that is a few short statements for many of them, and
behind a thousand devices that ask for everything at once they would wait as long as these do.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import weakref
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from app import deadline
from app.db.turns import Turns, row_ms
from app.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from contextlib import AbstractAsyncContextManager

    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

MAX_CONNECTIONS = 12
FOR_STREAMS = 2  # of them are kept for what no stream can do without
CONNECT_SECONDS = 2
ACQUIRE_SECONDS = 1.5
COMMAND_SECONDS = 4
USE_SECONDS = 4.5  # from asking for a connection to having done with it, whatever is run on it
CLOSE_SECONDS = 5  # for what is in flight, when the pool is closed
LOCK_SECONDS = 2  # of what takes no turns
ATTEMPTS = 3  # of a transaction that PostgreSQL itself asks to run again (40001, 40P01)

SESSION_SETTINGS = {
    "lock_timeout": f"{LOCK_SECONDS}s",
    "statement_timeout": "3000",
    "idle_in_transaction_session_timeout": "5000",
    "jit": "off",  # compiling costs more than any statement here takes
    # One plan for each statement, whatever the tables held when it was first run: look up by index. One that was
    # made for empty tables is kept until they are analyzed, and reads all of an inbox table for every client.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "timezone": "UTC",
}

RETRYABLE = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)

# What means "not now" rather than "wrong": lost or refused connections, time-outs, a full disk.
UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.LockNotAvailableError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # a standby, which has no timeline of its own to tell
    asyncpg.PostgresSystemError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidCatalogNameError,  # dropped or renamed, to be restored
    asyncpg.IdleInTransactionSessionTimeoutError,
    *RETRYABLE,
)


class Database:
    """A pool of connections that is opened once and survives PostgreSQL going away and coming back."""

    def __init__(self, url: str, *, max_size: int = MAX_CONNECTIONS) -> None:
        """Take the URL; `open` connects."""
        self.url = url
        self.turns = Turns()
        self._max_size = max_size
        self._for_others = asyncio.Semaphore(max(1, max_size - FOR_STREAMS))
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()
        self._connections: weakref.WeakSet[asyncpg.Connection[asyncpg.Record]] = weakref.WeakSet()
        self._lent: Counter[int] = Counter()  # by the process id of their backends

    async def close(self, within_seconds: float = CLOSE_SECONDS) -> None:
        """Close the pool; cut what is in flight for longer."""
        if self._pool is None:
            return
        try:
            await asyncio.wait_for(self._pool.close(), within_seconds)
        except TimeoutError:
            self._pool.terminate()

    async def connect(self, **settings: str) -> asyncpg.Connection[asyncpg.Record]:
        """Open a connection of one's own, outside the pool. Raises UnavailableError within 2 s."""
        with_name = {"application_name": "gapless", **SESSION_SETTINGS, **settings}
        try:
            return await asyncpg.connect(
                self.url, timeout=CONNECT_SECONDS, command_timeout=COMMAND_SECONDS, server_settings=with_name
            )
        except UNAVAILABLE as error:
            raise UnavailableError from error

    @asynccontextmanager
    async def acquire(self, *, for_streams: bool = False) -> AsyncIterator[Connection]:
        """Lend a connection. Raises UnavailableError when PostgreSQL does not answer, or the request was answered."""
        cancellations = _cancellations()
        try:
            pool = self._pool or await self._open()
            async with asyncio.timeout(USE_SECONDS) as limit, self._lend(pool, for_streams=for_streams) as connection:
                deadline.seconds_left()
                try:
                    yield connection
                except (TimeoutError, asyncio.CancelledError) as error:
                    # Neither a rollback nor a reset could be answered sooner than what was asked before.
                    with contextlib.suppress(asyncpg.InterfaceError):  # it was lost, and the pool has it back
                        connection.terminate()
                    if limit.expired() or isinstance(error, TimeoutError):
                        self._drop_idle()
                    raise
        except UNAVAILABLE as error:
            if _cancellations() > cancellations:  # what a loop that goes on after UnavailableError would not notice
                raise asyncio.CancelledError from error
            raise UnavailableError from error

    @asynccontextmanager
    async def transaction(self, *, takes_turns: bool = False) -> AsyncIterator[Connection]:
        """Lend a connection with a transaction, which is committed when the block ends, or rolled back."""
        async with self.acquire() as connection:
            await connection.execute(f"BEGIN; SET LOCAL lock_timeout = {row_ms()}" if takes_turns else "BEGIN")
            try:
                yield connection
            except (TimeoutError, asyncio.CancelledError):
                raise  # PostgreSQL rolls back when the connection ends; to ask for it would be another wait
            except BaseException:
                await connection.execute("ROLLBACK")
                raise
            await connection.execute("COMMIT")

    async def transactions(self) -> AsyncGenerator[AbstractAsyncContextManager[Connection]]:
        """Give a transaction, and another while PostgreSQL asks to run it again, three at most.

            async for transaction in database.transactions():
                async with transaction as connection:
                    ...
            # here it is committed

        The body may run more than once, so it must not do anything that a rollback does not undo.
        """
        for attempt in range(ATTEMPTS):
            outcome = _Attempt(self, last=attempt == ATTEMPTS - 1)
            yield outcome
            if outcome.is_done:
                return
            await asyncio.sleep(random.uniform(0.005, 0.02) * 2**attempt)  # noqa: S311 - jitter

    async def fetch(self, sql: str, *arguments: object, for_streams: bool = False) -> list[asyncpg.Record]:
        """Run one statement on a connection of the pool and give its rows."""
        async with self.acquire(for_streams=for_streams) as connection:
            return await connection.fetch(sql, *arguments)

    async def fetchrow(self, sql: str, *arguments: object) -> asyncpg.Record | None:
        """Run one statement and give its first row."""
        async with self.acquire() as connection:
            return await connection.fetchrow(sql, *arguments)

    async def fetchval(self, sql: str, *arguments: object, for_streams: bool = False) -> Any:
        """Run one statement and give its first value."""
        async with self.acquire(for_streams=for_streams) as connection:
            return await connection.fetchval(sql, *arguments)

    @asynccontextmanager
    async def _lend(self, pool: asyncpg.Pool[asyncpg.Record], *, for_streams: bool) -> AsyncIterator[Connection]:
        ends_at = time.monotonic() + min(ACQUIRE_SECONDS, deadline.seconds_left())
        place: asyncio.Semaphore | None = None
        backend: int | None = None
        try:
            if not for_streams:
                async with asyncio.timeout(ends_at - time.monotonic()):
                    await self._for_others.acquire()
                place = self._for_others
            async with pool.acquire(timeout=ends_at - time.monotonic()) as connection:
                backend = connection.get_server_pid()
                self._lent[backend] += 1
                yield connection
        finally:
            # Not before the pool has it back: `_drop_idle` must not take it for idle on its way there.
            if backend is not None:
                self._lent -= Counter((backend,))
            if place is not None:
                place.release()

    async def _open(self) -> asyncpg.Pool[asyncpg.Record]:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self.url,
                    min_size=0,
                    max_size=self._max_size,
                    max_inactive_connection_lifetime=300,
                    max_queries=2**31,  # an exchange takes time that a use whose work is committed may not have
                    timeout=CONNECT_SECONDS,
                    command_timeout=COMMAND_SECONDS,
                    server_settings={"application_name": "gapless", **SESSION_SETTINGS},
                    init=self._remember,
                    reset=_leave_nothing_behind,
                )
            return self._pool

    async def _remember(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connections.add(connection)

    def _drop_idle(self) -> None:
        """Forget the connections that nobody uses.

        Where one says nothing for longer than any statement may take, the others are no better: tried one by
        one, a pool of dead connections would cost ten time-outs.
        """
        for connection in list(self._connections):
            if not connection.is_closed() and connection.get_server_pid() not in self._lent:
                connection.terminate()


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


async def _leave_nothing_behind(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    # Nothing here changes a session, so asyncpg's own reset, a round trip per use, is for accidents alone.
    if connection.is_in_transaction():
        await connection.reset()


class _Attempt:
    """One run of a transaction; swallows a request to run it again unless it is the last."""

    def __init__(self, database: Database, *, last: bool) -> None:
        self._last = last
        self._transaction = database.transaction(takes_turns=True)
        self.is_done = False

    async def __aenter__(self) -> Connection:
        return await self._transaction.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        try:
            await self._transaction.__aexit__(kind, error, trace)  # type: ignore[arg-type]
        except UnavailableError as unavailable:
            if isinstance(unavailable.__cause__, RETRYABLE) and not self._last:
                return True
            raise
        self.is_done = True
        return False
