"""What becomes of sends whose batch failed: its targets apart, so that one that waits takes none along.

A *target* is what a send contends for: its conversation, or the two users of a direct one. When a batch meets a
row that somebody else holds, PostgreSQL is asked which rows of its targets are locked just now. What needs none of
them is committed at once. The others have a *lane* each: new sends to them wait there, not in the batches of the
others, and so do sends to new targets that need the same rows. One task asks again and again, for all lanes
together, and commits what is free. It never waits long: a transaction that waits for the recipient's head already
holds the sender's, and everybody else who writes to the sender would wait with it.

A row may be locked whenever one looks and still be nobody's for long: that of a busy user. Then its holder changes,
and its targets get short looks, *glances*. So do those whose rows seem to be free and are not: what they wait for
cannot be seen, a key that somebody else is about to commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

import asyncpg

from app.db.pool import RETRYABLE, UNAVAILABLE
from app.db.sends import HeldRow, Send, SendOutcome
from app.errors import UnavailableError
from app.observability import log_defect, stats
from app.services.send_lanes import MAX_MISSES, KnownTargets, Lane, Waiting, in_groups

if TYPE_CHECKING:
    from app.db.pool import Database
    from app.services.send_lanes import Target

GLANCE_MS: Final = 50  # how long targets apart wait for a row
REST_SECONDS: Final = 0.15  # until PostgreSQL is asked again
MAX_ISOLATIONS: Final = 4  # failed batches that are looked at; the writer of the next one waits
MAX_GLANCES: Final = 2  # connections at once, for the targets of failed batches; one more is for the lanes
MAX_HELD: Final = 5_000  # sends in lanes; past it a new one for a lane is refused, and no other
MAX_TOGETHER: Final = 64  # sends of a glance; lanes of a question
ATTEMPTS: Final = 3
MAX_LOOKS: Final = 2  # glances in vain of a sweep, at what seems to be free and at what does not

Commit = Callable[["asyncpg.Connection[asyncpg.Record]", Sequence[Send], int], Awaitable[list[SendOutcome]]]
Ask = Callable[["asyncpg.Connection[asyncpg.Record]", Sequence[Send], int], Awaitable[Sequence[frozenset[HeldRow]]]]
Spawn = Callable[[Awaitable[object]], None]
Requeue = Callable[[list[Waiting]], None]


class _Verdict(Enum):
    DONE = auto()  # everyone has an answer
    HELD = auto()  # a row was held for longer than the time-out
    APART = auto()  # not together: too large, or one of them is wrong


class Isolation:
    """Answers the sends of failed batches, or gives them back once nothing is in their way."""

    def __init__(
        self, database: Database, *, commit: Commit, ask: Ask, known: KnownTargets, spawn: Spawn, requeue: Requeue
    ) -> None:
        """Commit through `commit`, in tasks that `spawn` holds; `requeue` takes sends whose target is free.

        `ask(connection, sends, lock_timeout_ms)` tells for each send which rows in its way are locked just now.
        """
        self._database = database
        self._commit = commit
        self._ask = ask
        self._known = known
        self._spawn = spawn
        self._requeue = requeue
        self._isolations = asyncio.Semaphore(MAX_ISOLATIONS)
        self._glances = asyncio.Semaphore(MAX_GLANCES)
        self._lanes: dict[Target, Lane] = {}
        self._held_rows: set[str] = set()  # that one and the same transaction had locked when asked twice
        self._size = 0  # sends in lanes
        self._is_sweeping = False

    @property
    def is_any_held(self) -> bool:
        """Whether there are lanes: somebody holds rows, and perhaps others that are not known yet."""
        return self._is_sweeping

    def takes(self, waiting: Waiting) -> bool:
        """Take a send that must not join a batch, behind those before it; false for all others."""
        if not self._lanes:
            return False
        lane = self._lanes.get(waiting.target)
        if lane is None:
            if self._held_rows.isdisjoint({waiting.send.sender_id, *self._known.users(waiting.target)}):
                return False
            lane = self._open(waiting.target)
            self._hold(lane)
        if self._size >= MAX_HELD:
            waiting.fail()
        else:
            self._append(lane, waiting)
        return True

    async def take_over(self, batch: Sequence[Waiting]) -> None:
        """Answer for a batch that failed as a whole. Returns when its targets are about to be looked at."""
        stats.send_batches_isolated += 1
        opened = []
        for waiting in batch:
            lane = self._lanes.get(waiting.target)
            if lane is None:
                lane = self._open(waiting.target)
                opened.append(lane)
            self._append(lane, waiting)
            lane.waiting.sort(key=lambda one: one.came_at)  # what came later may have failed sooner
        await self._isolations.acquire()
        self._spawn(self._isolate(opened))

    # --- The targets of a failed batch -----------------------------------------------------------

    async def _isolate(self, lanes: list[Lane]) -> None:
        try:
            async with self._glances:
                await self._find_rows(lanes)
            groups = in_groups((lane for lane in lanes if not lane.rows), self._known)
            for lane in lanes:
                if lane.rows:
                    self._hold(lane)
            await self._serve_all(groups, MAX_MISSES, self._glances)
        finally:
            self._isolations.release()
            for lane in lanes:
                if self._lanes.get(lane.target) is lane and not lane.is_held:
                    self._hold(lane)

    async def _serve_all(
        self, groups: deque[list[Lane]], misses: int, turns: contextlib.AbstractAsyncContextManager[object]
    ) -> None:
        """Serve what seems to be free until so many were looked at alone and in vain."""
        missed: set[HeldRow] = set()
        while groups and misses:
            group = groups.popleft()
            if len(group) == 1 and not missed.isdisjoint(group[0].rows):
                continue  # another one waits for the same row
            async with turns:
                is_served = await self._serve(group)
            if is_served:
                continue
            if len(group) > 1:
                groups.extendleft([lane] for lane in reversed(group))
            else:
                misses -= 1
                missed |= group[0].rows
                group[0].looks += 1

    async def _find_rows(self, lanes: Sequence[Lane]) -> None:
        """Ask what is locked of the rows that these targets need. Nothing, if there is no answer."""
        for lane in lanes:
            self._tidy(lane)
            lane.rows = frozenset()
        lanes = [lane for lane in lanes if lane.waiting]
        for start in range(0, len(lanes), MAX_TOGETHER):
            asked = lanes[start : start + MAX_TOGETHER]
            try:
                async with self._database.acquire() as connection:
                    sends = [lane.waiting[0].send for lane in asked]
                    found = await self._ask(connection, sends, GLANCE_MS)  # type: ignore[arg-type]
            except UnavailableError:
                return  # a glance will tell
            except Exception as error:  # noqa: BLE001 - nobody must wait for it
                log_defect("held_rows_failed", error, lanes=len(asked))
                return
            for lane, rows in zip(asked, found, strict=True):
                lane.rows = rows

    # --- Lanes -----------------------------------------------------------------------------------

    def _open(self, target: Target) -> Lane:
        lane = self._lanes[target] = Lane(target)
        return lane

    def _append(self, lane: Lane, waiting: Waiting) -> None:
        lane.waiting.append(waiting)
        self._size += 1

    def _tidy(self, lane: Lane) -> None:
        self._size -= lane.tidy(time.monotonic())

    def _hold(self, lane: Lane) -> None:
        lane.is_held = True
        if not self._is_sweeping:
            self._is_sweeping = True
            self._spawn(self._sweep())

    def _close(self, lane: Lane) -> None:
        del self._lanes[lane.target]
        self._size -= len(lane.waiting)
        self._requeue(lane.waiting)

    async def _sweep(self) -> None:
        """Look at the held lanes until none is left."""
        held: list[Lane] = []
        locked: set[HeldRow] = set()
        try:
            while held := [lane for lane in self._lanes.values() if lane.is_held]:
                await asyncio.sleep(REST_SECONDS)
                await self._find_rows(held)
                before, locked = locked, {row for lane in held for row in lane.rows}
                self._held_rows = {row.name for row in locked & before}
                for lane in held:
                    if not lane.waiting:
                        self._close(lane)
                handed_on = {row.name for row in before - locked}
                await self._look_again([lane for lane in held if lane.waiting], handed_on)
        finally:
            self._is_sweeping = False
            self._held_rows = set()
            for lane in held:  # none, unless this is the end of the process
                if self._lanes.get(lane.target) is lane:
                    for waiting in lane.waiting:
                        waiting.fail()
                    self._tidy(lane)
                    self._close(lane)

    async def _look_again(self, lanes: Sequence[Lane], handed_on: set[str]) -> None:
        """Serve what needs no locked row, or only such as one transaction hands on to the next."""
        no_turns: contextlib.nullcontext[None] = contextlib.nullcontext()
        free = in_groups((lane for lane in lanes if not lane.rows), self._known)
        await self._serve_all(free, MAX_LOOKS, no_turns)
        busy = (lane for lane in lanes if lane.rows and handed_on.issuperset(row.name for row in lane.rows))
        await self._serve_all(in_groups(busy, self._known), MAX_LOOKS, no_turns)

    # --- A glance --------------------------------------------------------------------------------

    async def _serve(self, lanes: Sequence[Lane]) -> bool:
        """Commit the first sends of these lanes together and close them; false if they must wait or part."""
        for lane in lanes:
            self._tidy(lane)
        share = max(1, MAX_TOGETHER // len(lanes))
        verdict = await self._try([first for lane in lanes for first in self._first(lane, share)])
        if verdict is _Verdict.APART and len(lanes) == 1:
            self._known.send_alone([lanes[0].target])
            verdict = await self._try(self._first(lanes[0], 1))
        if verdict is not _Verdict.DONE:
            return False
        for lane in lanes:
            self._tidy(lane)
            self._close(lane)
        return True

    def _first(self, lane: Lane, share: int) -> list[Waiting]:
        return lane.waiting[: 1 if self._known.goes_alone(lane.target) else share]

    async def _try(self, group: Sequence[Waiting]) -> _Verdict:
        for attempt in range(ATTEMPTS if group else 0):
            try:
                async with self._database.acquire() as connection:
                    outcomes = await self._commit(connection, [one.send for one in group], GLANCE_MS)  # type: ignore[arg-type]
            except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
                cause = error.__cause__ if isinstance(error, UnavailableError) else error
                if isinstance(cause, RETRYABLE) and attempt < ATTEMPTS - 1:
                    continue
                verdict = _verdict(cause, len(group))
                if verdict is _Verdict.DONE:
                    if cause is error:
                        log_defect("send_failed", error, sends=len(group))
                    for waiting in group:
                        waiting.fail(error)
                return verdict
            self._known.learn(group, outcomes)
            for waiting, outcome in zip(group, outcomes, strict=True):
                waiting.resolve(outcome)
            return _Verdict.DONE
        return _Verdict.DONE  # nobody waits any more


def _verdict(cause: BaseException | None, sends: int) -> _Verdict:
    """Judge a glance that failed: whether there is a second one for its sends, or for some of them."""
    if isinstance(cause, asyncpg.LockNotAvailableError):
        return _Verdict.HELD
    if sends == 1 or cause is None:
        return _Verdict.DONE
    if isinstance(cause, (asyncpg.QueryCanceledError, *RETRYABLE)) or not isinstance(cause, UNAVAILABLE):
        return _Verdict.APART
    return _Verdict.DONE
