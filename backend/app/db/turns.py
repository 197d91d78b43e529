"""Who may wait for a row now: whoever waits for one holds a connection, and there are few of those."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakValueDictionary

import asyncpg

from app import deadline
from app.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Hashable

# Connections at once: requests have ten, and the others are for what waits for no row.
MAX_CHANGES: Final = 4  # for changes of conversations
MAX_SMALL_CHANGES: Final = 3  # for those of one row that is one's own: a read position, a profile
MAX_AGAIN: Final = 2  # of either, for those who have met a held row: most of them will meet it again
TURN_SECONDS: Final = 4.5  # where no request says how long
ROW_SECONDS: Final = 0.2  # the wait for a row, of one turn

T = TypeVar("T")


def row_ms() -> int:
    """Give how long a turn waits for a row; less where the request has less, as nobody waits after the answer."""
    return max(1, int(1000 * min(ROW_SECONDS, deadline.seconds_left())))


class Turns:
    """Lets changes in one after the other: of one thing one at a time, of all of them a few.

    Those of one conversation would wait for one another in PostgreSQL. One that somebody else holds costs one
    connection, and the time of those who want to change it. Who meets a held row has the turn for `ROW_SECONDS`, and
    then stands in another line for the next, which leaves turns to the others: the rows of many conversations may be
    held, or one inbox head that all of them count in.
    """

    def __init__(self) -> None:
        """Start with nobody."""
        self._changes = _Line(MAX_CHANGES)
        self._small_changes = _Line(MAX_SMALL_CHANGES)
        # One that nobody holds or waits for is forgotten.
        self._of_one: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    async def run(self, attempt: Callable[[], Awaitable[T]], thing: Hashable, *, is_small: bool = False) -> T:
        """Run `attempt` when it is its turn, and again while it meets a held row; `thing` is None for what is new.

        An attempt that raises leaves nothing behind. Raises UnavailableError when there is no turn before the
        request's deadline, or the row is still held then.
        """
        ends_at = time.monotonic() + min(TURN_SECONDS, deadline.seconds_left())
        own = asyncio.Lock() if thing is None else self._of_one.setdefault(thing, asyncio.Lock())
        line = self._small_changes if is_small else self._changes
        async with _entered(own, ends_at):
            try:
                async with _entered(line.all, ends_at):
                    return await attempt()
            except UnavailableError as error:
                if not _may_try_again(error, ends_at):
                    raise
            while True:
                try:
                    async with _entered(line.again, ends_at), _entered(line.all, ends_at):
                        return await attempt()
                except UnavailableError as error:
                    if not _may_try_again(error, ends_at):
                        raise


def _may_try_again(error: UnavailableError, ends_at: float) -> bool:
    return isinstance(error.__cause__, asyncpg.LockNotAvailableError) and time.monotonic() < ends_at


class _Line:
    def __init__(self, most: int) -> None:
        self.all = asyncio.Semaphore(most)
        self.again = asyncio.Semaphore(MAX_AGAIN)


@asynccontextmanager
async def _entered(line: asyncio.Lock | asyncio.Semaphore, ends_at: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(ends_at - time.monotonic()):
            await line.acquire()
    except TimeoutError as error:
        raise UnavailableError from error
    try:
        yield
    finally:
        line.release()
