"""What becomes of sends whose batch failed: its targets apart, so that one that waits takes none along.

A *target* is what a send contends for: its conversation, or the two users of a direct one. When a batch meets a
row that somebody else holds, its targets get short looks, a few together and then one by one. Those that are
held have a *lane*: they are looked at again and again, and new sends to them wait there, not in the batches of the
others. Never a long look: a transaction that waits for the recipient's head already holds the sender's,
and everybody else who writes to the sender would wait with it.

Often one row holds many targets, the head of a user to whom many write. So who shares a user with a target that
is held is suspected, and not looked at one by one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

import asyncpg

from app.db.pool import RETRYABLE, UNAVAILABLE
from app.db.sends import Send, SendOutcome
from app.errors import UnavailableError
from app.observability import log_defect, stats
from app.services.send_lanes import KnownTargets, Lane, Suspicion, Waiting, companions, in_groups

if TYPE_CHECKING:
    from app.db.pool import Database
    from app.services.send_lanes import Target

GLANCE_MS: Final = 50  # how long targets apart wait for a row
REST_SECONDS: Final = 0.15  # between two looks at a held target: what it locks is free for most of the time
MAX_ISOLATIONS: Final = 4  # failed batches that are looked at; the writer of the next one waits
MAX_GLANCES: Final = 2  # connections at once, for the targets of failed batches; one more is for the lanes
MAX_HELD: Final = 5_000  # sends in lanes; past it a new one for a lane is refused, and no other
MAX_TOGETHER: Final = 64
ATTEMPTS: Final = 3
SHARED_LANES: Final = 3  # held targets that share a user, after which new ones with that user are held unseen

Commit = Callable[["asyncpg.Connection[asyncpg.Record]", Sequence[Send], int], Awaitable[list[SendOutcome]]]
Spawn = Callable[[Awaitable[object]], None]
Requeue = Callable[[list[Waiting]], None]


class _Verdict(Enum):
    DONE = auto()  # everyone has an answer
    HELD = auto()  # a row was held for longer than the time-out
    APART = auto()  # not together: too large, or one of them is wrong


class Isolation:
    """Answers the sends of failed batches, or gives them back once nothing is in their way."""

    def __init__(
        self, database: Database, *, commit: Commit, known: KnownTargets, spawn: Spawn, requeue: Requeue
    ) -> None:
        """Commit through `commit`, in tasks that `spawn` holds; `requeue` takes sends whose target is free."""
        self._database = database
        self._commit = commit
        self._known = known
        self._spawn = spawn
        self._requeue = requeue
        self._isolations = asyncio.Semaphore(MAX_ISOLATIONS)
        self._glances = asyncio.Semaphore(MAX_GLANCES)
        self._lanes: dict[Target, Lane] = {}
        self._held_users: Counter[str] = Counter()  # in how many held lanes each is
        self._size = 0  # sends in lanes
        self._is_sweeping = False

    def takes(self, waiting: Waiting) -> bool:
        """Take a send that must not join a batch, behind those before it; false for all others."""
        if not self._lanes:
            return False
        lane = self._lanes.get(waiting.target)
        if lane is None:
            users = self._known.users(waiting.target) | {waiting.send.sender_id}
            if all(self._held_users[user] < SHARED_LANES for user in users):
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
        await self._isolations.acquire()
        self._spawn(self._isolate(opened))

    # --- The targets of a failed batch -----------------------------------------------------------

    async def _isolate(self, lanes: list[Lane]) -> None:
        try:
            await self._look_at(lanes)
        finally:
            self._isolations.release()
            for lane in lanes:
                if self._lanes.get(lane.target) is lane and not lane.is_held:
                    self._hold(lane)

    async def _look_at(self, lanes: Sequence[Lane]) -> None:
        suspicion = Suspicion(self._held_users)
        suspects: list[Lane] = []
        groups = in_groups(lanes, self._known)
        while groups:
            group: list[Lane] = []
            for lane in groups.popleft():
                (suspects if suspicion.is_general or suspicion.falls_on(lane) else group).append(lane)
            if not group or await self._glance(group):
                continue
            if len(group) > 1:
                groups.extendleft([lane] for lane in reversed(group))
            else:
                suspicion.add(group[0])
                self._hold(group[0])
        if suspects:
            await self._glance(suspects)  # what is still there is held from now on

    async def _glance(self, lanes: Sequence[Lane]) -> bool:
        async with self._glances:
            return await self._serve(lanes)

    # --- Lanes -----------------------------------------------------------------------------------

    def _open(self, target: Target) -> Lane:
        lane = self._lanes[target] = Lane(target, self._known.users(target))
        return lane

    def _append(self, lane: Lane, waiting: Waiting) -> None:
        lane.waiting.append(waiting)
        self._size += 1

    def _tidy(self, lane: Lane) -> None:
        self._size -= lane.tidy(time.monotonic())

    def _hold(self, lane: Lane) -> None:
        lane.is_held = True
        self._held_users.update(lane.users)
        if not self._is_sweeping:
            self._is_sweeping = True
            self._spawn(self._sweep())

    def _close(self, lane: Lane) -> None:
        del self._lanes[lane.target]
        if lane.is_held:
            for user in lane.users:
                self._held_users[user] -= 1
                if not self._held_users[user]:
                    del self._held_users[user]
        self._size -= len(lane.waiting)
        self._requeue(lane.waiting)

    async def _sweep(self) -> None:
        """Look at the held lanes until none is left."""
        held: list[Lane] = []
        try:
            while held := [lane for lane in self._lanes.values() if lane.is_held]:
                await asyncio.sleep(REST_SECONDS)
                for lane in held:
                    self._tidy(lane)
                    if not lane.waiting:
                        self._close(lane)
                await self._look_again([lane for lane in held if lane.waiting])
        finally:
            self._is_sweeping = False
            for lane in held:  # none, unless this is the end of the process
                if self._lanes.get(lane.target) is lane:
                    for waiting in lane.waiting:
                        waiting.fail()
                    self._tidy(lane)
                    self._close(lane)

    async def _look_again(self, held: Sequence[Lane]) -> None:
        suspicion = Suspicion()
        freed: set[str] = set()
        lanes = deque(sorted(held, key=lambda lane: lane.misses))
        while lanes:
            lane = lanes.popleft()
            if suspicion.falls_on(lane):
                continue
            group = companions(lane, lanes, freed, MAX_TOGETHER)
            if await self._serve(group):
                freed.update(*(one.users for one in group))
            else:
                suspicion.add(lane)
                for one in group:
                    one.misses += 1

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
