"""The parts of send isolation that decide without I/O: who waits, for what, and what may be tried together."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from app.errors import UnavailableError
from app.observability import stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from app.db.sends import HeldRow, Send, SendOutcome

WIDE_RECIPIENTS: Final = 200  # a conversation seen to have more goes in batches of its own
FEW_RECIPIENTS: Final = 8  # of a conversation seen to have no more it is remembered who they are
MAX_KNOWN: Final = 10_000  # conversations of either kind that are remembered
TOGETHER: Final = 8  # targets of a failed batch that are tried at once: if one is held, 8 glances find it
MAX_MISSES: Final = 4  # glances in vain, one by one, that a failed batch gets

Target = tuple[str, ...]


class Waiting:
    """A send that has no outcome yet, and everyone who waits for it. There is one for a key at a time."""

    __slots__ = ("_forget", "came_at", "deadline", "first", "is_answered", "others", "send", "target")

    def __init__(self, send: Send, deadline: float, forget: Callable[[Waiting], object]) -> None:
        """Wait for the outcome of `send` until the monotonic time `deadline`; then `forget` is called."""
        self.send = send
        self.target: Target = send.target
        self.deadline = deadline
        self.came_at = deadline  # the first one's: in the order they came
        self.first: asyncio.Future[SendOutcome] = asyncio.get_running_loop().create_future()
        self.others: list[asyncio.Future[SendOutcome]] = []
        self.is_answered = False
        self._forget = forget

    def join(self, deadline: float) -> asyncio.Future[SendOutcome]:
        """Wait for the same outcome; the send stays as long as the last who waits for it."""
        future: asyncio.Future[SendOutcome] = asyncio.get_running_loop().create_future()
        self.others.append(future)
        self.deadline = max(self.deadline, deadline)
        return future

    def resolve(self, outcome: SendOutcome) -> None:
        """Give everyone the outcome."""
        self._end()
        for future in (self.first, *self.others):
            if not future.done():
                future.set_result(outcome)

    def fail(self, cause: Exception | None = None) -> None:
        """Tell everyone that the outcome is not known: the same key will tell."""
        self._end()
        stats.sends_failed += 1
        for future in (self.first, *self.others):
            if not future.done():
                error = UnavailableError()
                error.__cause__ = cause
                future.set_exception(error)
                future.exception()  # whoever waited may have hung up: not "never retrieved"

    def _end(self) -> None:
        if not self.is_answered:
            self.is_answered = True
            self._forget(self)


class KnownTargets:
    """What earlier commits have shown of conversations: who is in a small one, and which are too wide to share.

    A guess for the next time, and no more: members come and go.
    """

    def __init__(self) -> None:
        """Know nothing."""
        self._users: dict[Target, frozenset[str]] = {}
        self._alone: set[Target] = set()

    def learn(self, batch: Sequence[Waiting], outcomes: Sequence[SendOutcome]) -> None:
        """Remember the recipients of what was committed."""
        for waiting, outcome in zip(batch, outcomes, strict=True):
            target, recipients = waiting.target, outcome.recipients
            if len(recipients) > WIDE_RECIPIENTS:
                self.send_alone([target])
            else:
                self._alone.discard(target)
                if len(target) == 1 and 0 < len(recipients) <= FEW_RECIPIENTS and target not in self._users:
                    if len(self._users) >= MAX_KNOWN:
                        self._users.clear()
                    self._users[target] = frozenset(user for user, _ in recipients)

    def send_alone(self, targets: Iterable[Target]) -> None:
        """Let each send to these targets have a transaction of its own, until one has few recipients."""
        if len(self._alone) >= MAX_KNOWN:
            self._alone.clear()
        self._alone.update(targets)

    def goes_alone(self, target: Target) -> bool:
        """Whether a send to this target shares its transaction with no other."""
        return target in self._alone

    def users(self, target: Target) -> frozenset[str]:
        """Whose inboxes a send to this target locks, as far as is known; else the conversation stands for them."""
        return self._users.get(target) or frozenset(target)


class Lane:
    """The sends to one target that stay out of the batches of others, in the order they came."""

    __slots__ = ("is_held", "looks", "rows", "target", "waiting")

    def __init__(self, target: Target) -> None:
        """Begin empty."""
        self.target = target
        self.waiting: list[Waiting] = []
        self.is_held = False
        self.rows: frozenset[HeldRow] = frozenset()  # of those it needs, the ones that were locked when last asked
        self.looks = 0  # alone and in vain: who had fewest is looked at first

    def tidy(self, now: float) -> int:
        """Fail what is past its deadline and drop what is answered. Returns how many have left."""
        for waiting in self.waiting:
            if waiting.deadline <= now and not waiting.is_answered:
                waiting.fail()
        before = len(self.waiting)
        self.waiting = [waiting for waiting in self.waiting if not waiting.is_answered]
        return before - len(self.waiting)


def in_groups(lanes: Iterable[Lane], known: KnownTargets) -> deque[list[Lane]]:
    """Share targets out into what is tried together. Who was looked at in vain goes alone, and last."""
    together: list[Lane] = []
    alone: list[Lane] = []
    for lane in lanes:
        (alone if lane.looks or known.goes_alone(lane.target) else together).append(lane)
    alone.sort(key=lambda lane: lane.looks)
    groups = [together[n : n + TOGETHER] for n in range(0, len(together), TOGETHER)]
    return deque([*groups, *([lane] for lane in alone)])
