"""Who may change a conversation now: whoever waits for a row holds a connection, and there are few of those."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from app import deadline
from app.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

MAX_CHANGES: Final = 4  # connections at once: the pool has ten, and the others are for what waits for no row
TURN_SECONDS: Final = 4.5  # where no request says how long


class Turns:
    """Lets changes in one after the other: of a conversation one at a time, of all of them four.

    Those of one conversation would wait for one another in PostgreSQL. A conversation that somebody else holds
    costs one connection, and the time of those who want to change it.
    """

    def __init__(self) -> None:
        """Start with nobody."""
        self._all = asyncio.Semaphore(MAX_CHANGES)
        # One that nobody holds or waits for is forgotten.
        self._of_one: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, conversation_id: UUID | None) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the block ends; None for what is not there yet.

        Raises UnavailableError when it does not come before the request's deadline.
        """
        own = self._of_one.setdefault(conversation_id, asyncio.Lock()) if conversation_id else asyncio.Lock()
        async with AsyncExitStack() as turns:
            try:
                async with asyncio.timeout(min(TURN_SECONDS, deadline.seconds_left())):
                    await turns.enter_async_context(own)
                    await turns.enter_async_context(self._all)
            except TimeoutError as error:
                raise UnavailableError from error
            yield
