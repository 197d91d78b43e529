"""A calm time of a run, and what may be worse while something is wrong: times are compared, never held to a clock."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from dataclasses import dataclass
from typing import Self

from tests.faults.kit.scene import Played, Scene
from tests.history.summary import delays

SPARE_SECONDS = 2.0  # what a slow machine may add to a promise
LATE_SECONDS = 2.0 + SPARE_SECONDS  # protocol 8.1: about two seconds, once a loss was noticed
# Of what the same run took without a fault.
TIMES_CALM, SLACK_SECONDS = 3, 0.5
# What a run changes and reads beside its sends, where a row says so.
CHANGES = {"changes_share": 0.02, "reads_share": 0.02}


@dataclass
class Span:
    """A time of the run: a calm one, or one without Redis, which was noticed at `noticed_at`."""

    since: float = math.inf
    until: float = math.inf
    noticed_at: float = math.inf

    def __enter__(self) -> Self:
        self.since = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.until = time.monotonic()

    @property
    def settled(self) -> Span:
        """Without its end, whose messages meet what comes next on their way."""
        return Span(self.since, self.until - SLACK_SECONDS)


def no_send_failed(played: Played) -> None:
    """Every send was acknowledged at the first attempt."""
    others = Counter(each.status for each in played.history.attempts if each.message_id is None)
    assert not others, f"answers to sends, by status: {dict(others)}"


def no_send_waited(scene: Scene, played: Played, calm: Span, fault: Span) -> None:
    """Sends were answered as fast as in the calm time, or nearly."""
    usual, then = answer_p99(played, calm.settled), answer_p99(played, fault)
    note_worst(scene, "p99_answer_seconds", usual, then)
    assert then <= TIMES_CALM * usual + SLACK_SECONDS + stalled(played, fault)


def nothing_came_late(scene: Scene, played: Played, calm: Span, fault: Span) -> None:
    """Messages were handed over as fast as in the calm time, or nearly; none waited for a heartbeat."""
    usual, then = delivery_p99(played, calm.settled), delivery_p99(played, fault)
    note_worst(scene, "p99_delivery_seconds", usual, then)
    assert then <= TIMES_CALM * usual + SLACK_SECONDS + stalled(played, fault)
    slowest = played.slowest_delivery(begun_after=fault.since, begun_before=fault.until)
    assert slowest < LATE_SECONDS + stalled(played, fault)


def stalled(played: Played, span: Span) -> float:
    """How long the machine itself stood still, at most, in that time and while what it began was on its way."""
    return played.meter.longest(span.since, span.until + LATE_SECONDS)


def note_worst(scene: Scene, name: str, usual: float, then: float) -> None:
    scene.notes[f"{name}_calm"] = round(usual, 3)
    scene.notes[f"{name}_then"] = max(round(then, 3), float(scene.notes.get(f"{name}_then", 0)))


def answer_p99(played: Played, span: Span) -> float:
    """Of sends begun in that time."""
    attempts = played.history.attempts
    return p99([each.ended_at - each.invoked_at for each in attempts if span.since <= each.invoked_at <= span.until])


def delivery_p99(played: Played, span: Span) -> float:
    """From acknowledgement to hand-over, of sends acknowledged in that time."""
    return p99([seconds for at, seconds in delays(played.history) if span.since <= at - seconds <= span.until])


def p99(seconds: list[float]) -> float:
    assert len(seconds) > 1, "nothing was sent in that time"
    return statistics.quantiles(seconds, n=100)[98]


def typical_delivery(played: Played, since: float, before: float) -> float:
    """The median from acknowledgement to hand-over, of sends acknowledged in that time."""
    return statistics.median(seconds for at, seconds in delays(played.history) if since <= at - seconds <= before)
