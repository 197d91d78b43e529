"""Group commit: concurrent sends of a process share a transaction.

While one batch is being committed the next one gathers. An idle queue adds no wait: a lone send leaves
at once. Two batches may be under way, one on each writer connection; the seqs stay dense because the
rows they are taken from are locked to the commit. A batch that fails as a whole goes to
`send_isolation.py`, and its writer to the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

import asyncpg

from app import deadline
from app.db.pool import RETRYABLE, UNAVAILABLE
from app.errors import IdempotencyConflictError, UnavailableError
from app.observability import log_defect, stats
from app.services.send_isolation import Ask, Commit, Isolation
from app.services.send_lanes import KnownTargets, Waiting

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from app.db.pool import Database
    from app.db.sends import Send, SendOutcome

WRITERS: Final = 2
MAX_BATCH: Final = 64
MAX_WAITING: Final = 10_000  # sends; past it a new one is refused at once rather than late
REQUEST_SECONDS: Final = 5.0
LOCK_MS: Final = 200  # how long a whole batch waits for a row that someone else holds
BRIEF_LOCK_MS: Final = 25  # the same while there are lanes: less than a glance, which may have to wait for it
CLOSE_SECONDS: Final = 6.0  # for what was submitted: it has its outcome in 5
WRITER_CLOSE_SECONDS: Final = 0.5  # else it is cut: nothing is in flight on it


class SendQueue:
    """Collects sends, commits them in batches, and tells each its own outcome."""

    def __init__(self, database: Database, *, commit: Commit, ask: Ask) -> None:
        """Commit through `commit(connection, sends, lock_timeout_ms)`, in tasks of this queue's own.

        `ask`, with the same arguments, tells which rows are in the way of each.
        """
        self._database = database
        self._commit = commit
        self._waiting: deque[Waiting] = deque()
        self._by_key: dict[tuple[str, UUID], Waiting] = {}  # what has no answer yet, wherever it waits
        self._writers: list[asyncpg.Connection[asyncpg.Record] | None] = [None] * WRITERS
        self._idle_writers = list(range(WRITERS))
        self._tasks: set[asyncio.Task[None]] = set()
        self._known = KnownTargets()
        self._isolation = Isolation(
            database, commit=commit, ask=ask, known=self._known, spawn=self._spawn, requeue=self._requeue
        )
        self._scheduled = False

    async def submit(self, send: Send) -> tuple[SendOutcome, bool]:
        """Commit one send. Returns its outcome, and whether this call was the one that made it.

        Raises UnavailableError when the outcome is not known within 5 s, IdempotencyConflictError when
        another request with the same key has no answer yet.
        """
        deadline = time.monotonic() + REQUEST_SECONDS
        key = (send.sender_id, send.client_message_id)
        while (twin := self._by_key.get(key)) is not None:
            if twin.send.request_hash != send.request_hash:
                raise IdempotencyConflictError
            outcome = await _outcome(twin.join(deadline), deadline)
            if twin.send.token_issued_at == send.token_issued_at:
                return outcome, False
            # One of the tokens may be revoked and the other not: this request is answered for its own.
        if len(self._waiting) >= MAX_WAITING:
            raise UnavailableError
        waiting = self._by_key[key] = Waiting(send, deadline, self._forget)
        self._waiting.append(waiting)
        self._schedule()
        return await _outcome(waiting.first, deadline), True

    async def close(self, within_seconds: float = CLOSE_SECONDS) -> None:
        """Wait until everything that was submitted has its outcome, then close the writers; then cut them."""
        ends_at = time.monotonic() + within_seconds
        while (self._tasks or self._waiting) and time.monotonic() < ends_at:
            tasks = set(self._tasks) or {asyncio.create_task(asyncio.sleep(0))}
            await asyncio.wait(tasks, timeout=ends_at - time.monotonic())
        await asyncio.gather(*(self._close_writer(number) for number in range(WRITERS)))

    async def _close_writer(self, number: int) -> None:
        writer = self._writers[number]
        if writer is not None and not self._tasks:
            with contextlib.suppress(Exception):
                await writer.close(timeout=WRITER_CLOSE_SECONDS)
        self._discard_writer(number)

    # --- Batches ---------------------------------------------------------------------------------

    def _schedule(self) -> None:
        # One turn of the loop later: sends that arrive in the same turn share the first batch.
        if not self._scheduled and self._idle_writers:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._start_batches)

    def _start_batches(self) -> None:
        self._scheduled = False
        while self._waiting and self._idle_writers:
            batch = self._next_batch()
            if batch:
                self._spawn(self._run_batch(self._idle_writers.pop(), batch))

    def _next_batch(self) -> list[Waiting]:
        batch: list[Waiting] = []
        now = time.monotonic()
        while self._waiting and len(batch) < MAX_BATCH:
            goes_alone = self._known.goes_alone(self._waiting[0].target)
            if goes_alone and batch:
                break  # thousands of inboxes: nobody else should wait for them
            waiting = self._waiting.popleft()
            if waiting.deadline <= now:
                waiting.fail()
            elif not self._isolation.takes(waiting):
                batch.append(waiting)
                if goes_alone:
                    break
        return batch

    def _requeue(self, freed: list[Waiting]) -> None:
        # Before everything else: they came before it.
        self._waiting.extendleft(reversed(freed))
        self._start_batches()

    def _forget(self, waiting: Waiting) -> None:
        del self._by_key[waiting.send.sender_id, waiting.send.client_message_id]

    async def _run_batch(self, number: int, batch: list[Waiting]) -> None:
        try:
            await self._attempt(number, batch)
        finally:
            self._idle_writers.append(number)
            self._start_batches()

    async def _attempt(self, number: int, batch: list[Waiting]) -> None:
        stats.send_batch_size.observe(len(batch))
        sends = [waiting.send for waiting in batch]
        for attempt in range(3):
            lock_ms = BRIEF_LOCK_MS if self._isolation.is_any_held else LOCK_MS
            try:
                outcomes = await self._commit(await self._writer(number), sends, lock_ms)
            except RETRYABLE:
                stats.send_retries += 1
                await asyncio.sleep(random.uniform(0.001, 0.01) * 2**attempt)  # noqa: S311 - jitter
            except (asyncpg.LockNotAvailableError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
                break
            except asyncpg.QueryCanceledError as error:
                if len(batch) == 1:
                    return _fail(batch, error)
                self._known.send_alone({waiting.target for waiting in batch})  # too much for one statement
                break
            except (*UNAVAILABLE, UnavailableError) as error:
                # The commit may or may not have happened: the same keys again will tell.
                self._discard_writer(number)
                if attempt or not _is_lost_connection(error):
                    return _fail(batch, error)
            except Exception as error:  # noqa: BLE001 - one send must not take the others along
                log_defect("send_batch_failed", error, sends=len(batch))
                self._discard_writer(number)
                break
            else:
                self._known.learn(batch, outcomes)
                return _resolve(batch, outcomes)
        await self._isolation.take_over(batch)
        return None

    # --- Connections and tasks -------------------------------------------------------------------

    async def _writer(self, number: int) -> asyncpg.Connection[asyncpg.Record]:
        writer = self._writers[number]
        if writer is None or writer.is_closed():
            writer = self._writers[number] = await self._database.connect(application_name="gapless writer")
        return writer

    def _discard_writer(self, number: int) -> None:
        # After a time-out or a lost connection nothing is known of its state.
        writer, self._writers[number] = self._writers[number], None
        if writer is not None:
            writer.terminate()

    def _spawn(self, work: Awaitable[object]) -> None:
        async def run() -> None:
            await work

        task = asyncio.get_running_loop().create_task(run(), context=deadline.of_nobody())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _outcome(future: asyncio.Future[SendOutcome], deadline: float) -> SendOutcome:
    # The future is this caller's alone: who gives up, or hangs up, takes the outcome from nobody else.
    timer = asyncio.get_running_loop().call_later(deadline - time.monotonic(), _give_up, future)
    try:
        return await future
    finally:
        timer.cancel()


def _give_up(future: asyncio.Future[SendOutcome]) -> None:
    if not future.done():
        future.set_exception(UnavailableError())
        future.exception()  # whoever waited may hang up at this moment: not "never retrieved"


def _resolve(batch: Sequence[Waiting], outcomes: Sequence[SendOutcome]) -> None:
    for waiting, outcome in zip(batch, outcomes, strict=True):
        waiting.resolve(outcome)


def _fail(batch: Sequence[Waiting], error: Exception) -> None:
    for waiting in batch:
        waiting.fail(error)


def _is_lost_connection(error: Exception) -> bool:
    """Whether a new connection may answer at once: not after a time-out, not when none can be made."""
    return not isinstance(error, (TimeoutError, UnavailableError))
