"""One scenario: a cluster, load, what goes wrong, and everything that must then be true."""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.faults.kit.cluster import Cluster
from tests.faults.kit.postgres import defects, wrong_rows
from tests.faults.kit.vitals import Vitals, as_json, leaks, vitals_of
from tests.history.checker import check
from tests.history.findings import Finding
from tests.history.plan import Shape, make_plan
from tests.history.records import Attempt, Call, History
from tests.history.run import Run, Stage, play
from tests.history.summary import Summary, delays, describe, summarize
from tests.support.meter import Meter
from tests.support.servers import token_for

# A request is answered within 5 s whatever is broken; the rest is this machine, which plays the load as well.
ANSWER_SECONDS = 7.0
TAIL_SECONDS = 2.0

# What a plan may last at most: faults end a run, not the plan.
_LONG_SECONDS = 180.0
_SETTLE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a scenario is played. `whole` is the catalogue's, the other fits into a test run."""

    name: str
    shape: Shape
    heartbeat_seconds: int

    def pick(self, *, gate: float, whole: float) -> float:
        """A number of the scenario's own: how long, how often."""
        return gate if self.name == "gate" else whole


GATE = Scale(
    "gate",
    Shape(users=40, groups=8, largest_group=12, direct_pairs=20, sends_per_second=80, seconds=_LONG_SECONDS),
    heartbeat_seconds=2,
)
# The specification's 200 users with two devices, at a pace that leaves the machine room to recover.
WHOLE = Scale("whole", Shape(sends_per_second=400, seconds=_LONG_SECONDS), heartbeat_seconds=10)


@dataclass(slots=True, repr=False)  # a failed assertion prints what it compares, and this is a whole run
class Played:
    """What a run came to. `answers` are the seconds of every acknowledged send; `meter` is of the machine."""

    history: History
    findings: list[Finding]
    summary: Summary
    answers: list[float]
    leaks: list[str]
    meter: Meter

    @property
    def answer_p99_seconds(self) -> float:
        return statistics.quantiles(self.answers, n=100)[98] if len(self.answers) > 1 else 0.0

    def slowest_delivery(self, *, begun_after: float = 0, begun_before: float = float("inf")) -> float:
        """The longest from acknowledgement to hand-over, of sends acknowledged in that time; there must be some."""
        seconds = self.deliveries(begun_after=begun_after, begun_before=begun_before)
        assert seconds, "nothing was delivered in that time"
        return max(seconds)

    def deliveries(self, *, begun_after: float, begun_before: float) -> list[float]:
        """From acknowledgement to hand-over, of sends acknowledged in that time."""
        return [seconds for at, seconds in delays(self.history) if begun_after <= at - seconds <= begun_before]


@dataclass(slots=True, repr=False)
class Scene:
    """What a scenario gets. `number` and `title` are its row in docs/reliability.md."""

    number: str
    title: str
    expect: str
    scale: Scale
    seed: int
    cluster: Cluster
    results: Path
    rng: random.Random = field(init=False)
    notes: dict[str, float | str] = field(default_factory=dict)
    _played: Played | None = None
    _before: list[Vitals] = field(default_factory=list)
    _after: list[Vitals] = field(default_factory=list)
    _history: History | None = None
    _began_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.seed} scene")  # not the numbers of the plan once more

    async def start(self, processes: int = 2, **options: Any) -> Cluster:
        """Start the cluster; keywords are those of Cluster.start."""
        return await self.cluster.start(processes, **{"heartbeat_seconds": self.scale.heartbeat_seconds, **options})

    async def play(
        self,
        faults: Callable[[Run], Awaitable[None]],
        *,
        hurry: float = 1,
        tail_seconds: float = TAIL_SECONDS,
        settle_seconds: float = _SETTLE_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
        may_resync: bool = False,
        **shape: Any,
    ) -> Played:
        """Play load until `faults` has ended and `tail_seconds` more, heal, and check everything.

        Keywords change the shape. Raises AssertionError on any finding, on a leak, on an answer later than
        `answer_seconds`, on a device that was told to reload unless `may_resync`, on a table that is not whole, and
        on a line in a log that speaks of a defect.
        """
        plan = make_plan(replace(self.scale.shape, **shape), self.seed)
        self._before = await vitals_of(self.cluster)

        async def with_history(run: Run) -> None:
            self._history = run.history
            await faults(run)

        meter = Meter()
        async with meter.running():
            history = await play(
                plan,
                Stage(self.cluster.ports, token_for),
                faults=with_history,
                hurry=hurry,
                settle_seconds=settle_seconds,
                tail_seconds=tail_seconds,
            )
        # In a thread: this loop is also the way to Redis and PostgreSQL, where a scenario has put a link there.
        findings = await asyncio.to_thread(check, history)
        answers = [each.ended_at - each.invoked_at for each in history.attempts if each.message_id is not None]
        self._played = Played(history, findings, summarize(history, findings), answers, [], meter)
        print(describe(history, findings))  # noqa: T201 - with the seed, for whoever wants to see it again
        self._played.leaks = await leaks(self.cluster, self._before)
        self._after = await vitals_of(self.cluster)
        self._judge(answer_seconds=answer_seconds, may_resync=may_resync)
        assert await wrong_rows(self.cluster) == []
        assert defects(self.cluster) == []
        return self._played

    @contextmanager
    def fault(self, what: str, *, mutes: bool = False) -> Iterator[None]:
        """Mark a fault in the history, from now to the end of the block; `mutes` a process or the way to it."""
        began_at = time.monotonic()
        try:
            yield
        finally:
            if self._history is not None:
                self._history.faults.append((began_at, time.monotonic(), what))
                if mutes:
                    self._history.mutes.append((began_at, time.monotonic()))

    def _judge(self, *, answer_seconds: float, may_resync: bool) -> None:
        assert self._played is not None
        total = self._played.summary
        assert self._played.findings == []
        assert self._played.leaks == []
        requests: list[Attempt | Call] = [*self._played.history.attempts, *self._played.history.calls]
        for each in requests:
            took = each.ended_at - each.invoked_at
            if took >= answer_seconds and not each.is_silent and not _is_muted(self._played.history, each):
                what = each.route if isinstance(each, Call) else "a send"
                stalled = self._played.meter.longest(each.invoked_at, each.ended_at)
                assert took < answer_seconds + stalled, f"{what} took {took:.1f} s"
        assert may_resync or total.resyncs == 0, f"{total.resyncs} devices were told to reload"
        assert total.stored > 0

    def write_result(self, *, why: str, **origin: object) -> None:
        """Leave the row for docs/reliability.md, and the picture's data, in `results`; `why` it failed, if so."""
        row: dict[str, Any] = {
            "number": self.number,
            "title": self.title,
            "expect": self.expect,
            "scale": self.scale.name,
            "seed": self.seed,
            "passed": not why,
            "why": why,
            **origin,
            "seconds": round(time.monotonic() - self._began_at, 1),
            "notes": self.notes,
        }
        if self._played is not None:
            total = asdict(self._played.summary)
            row |= {"summary": total | {"findings": {str(kind): n for kind, n in total["findings"].items()}}}
            row |= {"answer_p99_seconds": self._played.answer_p99_seconds, "leaks": self._played.leaks}
            row |= {"before": as_json(self._before), "after": as_json(self._after)}
            row |= {"timeline": timeline(self._played.history)}
        write_row(self.results, row)


def _is_muted(history: History, each: Attempt | Call) -> bool:
    """Whether a fault kept its answer from the client. Silence is the checker's, which knows the same."""
    return any(begin <= each.ended_at and each.invoked_at <= end for begin, end in history.mutes)


def write_row(results: Path, row: dict[str, Any]) -> None:
    """Leave a scenario's row in `results`, whole or not at all."""
    results.mkdir(parents=True, exist_ok=True)
    part = results / f"{row['number']}.{os.getpid()}.part"
    part.write_text(json.dumps(row, indent=1))
    part.replace(results / f"{row['number']}.json")


BUCKET_SECONDS = 0.25


def timeline(history: History) -> dict[str, Any]:
    """What a picture is drawn from: per quarter of a second sends, hand-overs and the longest delay."""
    began_at = min((each.invoked_at for each in history.attempts), default=0.0)
    buckets: dict[int, list[float]] = {}

    def bucket(at: float) -> list[float]:
        return buckets.setdefault(int((at - began_at) / BUCKET_SECONDS), [0, 0, 0.0, 0])

    for attempt in history.attempts:
        if attempt.message_id is not None:
            bucket(attempt.ended_at)[0] += 1
        elif attempt.status != 0:
            bucket(attempt.ended_at)[3] += 1
    for at, seconds in delays(history):
        here = bucket(at)
        here[1] += 1
        here[2] = max(here[2], round(seconds, 3))
    return {
        "bucket_seconds": BUCKET_SECONDS,
        # [bucket, acknowledged, handed over, longest delay in seconds, refused or unavailable]
        "buckets": [[number, *buckets[number]] for number in sorted(buckets)],
        "faults": [[round(begin - began_at, 2), round(end - began_at, 2), what] for begin, end, what in history.faults],
    }
