"""What becomes of sends whose batch failed: each target alone, so that one that waits takes none along.

A *target* is what a send contends for: its conversation, or the two users of a direct one. When a batch
meets a row that somebody else holds, every target of the batch gets a short look of its own; those that
are held are then looked at again and again, and new sends to them wait there, not in the batches of the
others. Never a long look: a transaction that waits for the recipient's head already holds the sender's,
and everybody else who writes to the sender would wait with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

import asyncpg

from app.db.pool import RETRYABLE
from app.db.sends import Send, SendOutcome
from app.errors import UnavailableError
from app.observability import log_defect, stats

if TYPE_CHECKING:
    from uuid import UUID

    from app.db.pool import Database

GLANCE_MS: Final = 50  # how long a target alone waits for a row
REST_SECONDS: Final = 0.15  # between two looks at a held target: what it locks is free for most of the time
MAX_GLANCES: Final = 2  # connections at once, for the targets of failed batches
MAX_HELD_GLANCES: Final = 2  # connections at once, for targets that were found held
ATTEMPTS: Final = 3
MAX_TOGETHER: Final = 64

Target = tuple[str, ...]
Commit = Callable[["asyncpg.Connection[asyncpg.Record]", Sequence[Send], int], Awaitable[list[SendOutcome]]]
Spawn = Callable[[Awaitable[object]], None]


class Waiting:
    """A send that has no outcome yet, and everyone who waits for it."""

    __slots__ = ("deadline", "first", "others", "send")

    def __init__(self, send: Send, deadline: float) -> None:
        """Wait for the outcome of `send` until the monotonic time `deadline`."""
        self.send = send
        self.deadline = deadline
        self.first: asyncio.Future[SendOutcome] = asyncio.get_running_loop().create_future()
        self.others: list[asyncio.Future[SendOutcome]] = []

    def resolve(self, outcome: SendOutcome) -> None:
        """Give everyone the outcome."""
        for future in (self.first, *self.others):
            if not future.done():
                future.set_result(outcome)

    def fail(self, cause: Exception | None = None) -> None:
        """Tell everyone that the outcome is not known: the same key will tell."""
        stats.sends_failed += 1
        for future in (self.first, *self.others):
            if not future.done():
                error = UnavailableError()
                error.__cause__ = cause
                future.set_exception(error)
                future.exception()  # whoever waited may have hung up: not "never retrieved"


class Isolation:
    """Commits sends target by target. Resolves or fails every send that it is given."""

    def __init__(self, database: Database, *, commit: Commit, spawn: Spawn) -> None:
        """Commit through `commit` on connections of `database`, in tasks that `spawn` holds."""
        self._database = database
        self._commit = commit
        self._spawn = spawn
        self._glances = asyncio.Semaphore(MAX_GLANCES)
        self._held_glances = asyncio.Semaphore(MAX_HELD_GLANCES)
        self._held: dict[Target, list[Waiting]] = {}

    def takes(self, waiting: Waiting) -> bool:
        """Take a send whose target is held; false for all others."""
        queue = self._held.get(waiting.send.target)
        if queue is None:
            return False
        queue.append(waiting)
        return True

    async def run(self, batch: Sequence[Waiting]) -> None:
        """Look at each target of a batch that failed as a whole; returns when none but the held are left."""
        stats.send_batches_isolated += 1
        targets: dict[Target, list[Waiting]] = {}
        for waiting in batch:
            targets.setdefault(waiting.send.target, []).append(waiting)
        await asyncio.gather(*(self._glance(target, group) for target, group in targets.items()))

    async def _glance(self, target: Target, group: list[Waiting]) -> None:
        async with self._glances:
            if await self._try(group, GLANCE_MS):
                return
        if target in self._held:
            self._held[target].extend(group)
        else:
            self._held[target] = group
            self._spawn(self._serve_held(target))

    async def _serve_held(self, target: Target) -> None:
        """Serve one held target, and what comes for it meanwhile, until nothing is left."""
        try:
            while self._held[target]:
                await asyncio.sleep(REST_SECONDS)
                group, self._held[target] = _next_group(self._held[target])
                now = time.monotonic()
                for waiting in group:
                    if waiting.deadline <= now:
                        waiting.fail()
                alive = [waiting for waiting in group if waiting.deadline > now]
                async with self._held_glances:
                    if alive and not await self._try(alive, GLANCE_MS):
                        self._held[target] = [*alive, *self._held[target]]
        finally:
            for waiting in self._held.pop(target):
                waiting.fail()

    async def _try(self, group: Sequence[Waiting], lock_timeout_ms: int) -> bool:
        """Commit the sends of one target; false when a row was held for longer than the time-out."""
        sends = [waiting.send for waiting in group]
        error: Exception | None = None
        for _ in range(ATTEMPTS):
            try:
                async with self._database.acquire() as connection:
                    outcomes = await self._commit(connection, sends, lock_timeout_ms)  # type: ignore[arg-type]
            except UnavailableError as unavailable:
                error = unavailable
                if isinstance(error.__cause__, asyncpg.LockNotAvailableError):
                    return False
                if not isinstance(error.__cause__, RETRYABLE):
                    break
            except Exception as defect:  # noqa: BLE001 - whoever waits must hear of it
                log_defect("send_failed", defect, sends=len(sends))
                error = defect
                break
            else:
                for waiting, outcome in zip(group, outcomes, strict=True):
                    waiting.resolve(outcome)
                return True
        for waiting in group:
            waiting.fail(error)
        return True


def _next_group(held: Sequence[Waiting]) -> tuple[list[Waiting], list[Waiting]]:
    """Take the next to be committed together, and leave the rest.

    A key is there once: of two sends with one key the second is served when the first is stored. Together
    neither would ever be.
    """
    group: dict[tuple[str, UUID], Waiting] = {}
    rest = []
    for waiting in held:
        key = (waiting.send.sender_id, waiting.send.client_message_id)
        if key in group or len(group) == MAX_TOGETHER:
            rest.append(waiting)
        else:
            group[key] = waiting
    return list(group.values()), rest
