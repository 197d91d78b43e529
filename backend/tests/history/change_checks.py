"""The numbers before edits, deletes, reactions and updates: dense on every stream, or a `resync` says not.

They are not replayed, so nothing is owed across streams: a device that opens one asks `changes` (protocol, 3.3).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

from tests.history.facts import Facts
from tests.history.findings import Finding, Kind
from tests.history.records import Event, Stream

# How long a stream must have gone on after a hole: a late frame, or a resync, may have been cut off with it.
LATE_SECONDS = 1.0
MAX_NAMED = 1000  # numbers of one hole

Inbox = tuple[str, str | None]  # a user, and the epoch in which changes are counted


@dataclass(slots=True)
class _Place:
    """One stream since it was connected, or since the last resync, which owns up to all holes before it."""

    stream: Stream
    epoch: str | None = None
    since: float = math.inf
    first: Event | None = None
    last: int = 0
    holes: dict[int, Event] = field(default_factory=dict)
    late: set[int] = field(default_factory=set)

    def begin(self, at: float) -> None:
        self.since, self.first = at, None
        self.holes.clear()


@dataclass(slots=True)
class _Known:
    """One change as some device of its user saw it; `born` is the earliest that it can have been committed."""

    event: Event
    born: float


def check_changes(facts: Facts) -> Iterator[Finding]:
    """Missed changes, numbers that stand for two changes, and changes told to strangers."""
    checks = _ChangeChecks(facts)
    for event in facts.history.events:
        yield from checks.event(event)
    yield from checks.missed()


class _ChangeChecks:
    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.places = {stream.number: _Place(stream) for stream in facts.history.streams}
        self.known: dict[Inbox, dict[int, _Known]] = defaultdict(dict)

    def event(self, event: Event) -> Iterator[Finding]:
        place = self.places[event.stream]
        if event.epoch is not None:
            place.epoch = event.epoch
        if event.name in {"connected", "resync"}:
            place.begin(event.at)
        if event.change is None:
            return
        self._count(place, event, event.change)
        inbox = self.facts.user_of(event.device), place.epoch
        known = self.known[inbox].setdefault(event.change, _Known(event, self._born(event)))
        if _what(known.event) != _what(event):
            what = f"change {event.change} was {_told(known.event)} on {known.event.device}, and is {_told(event)}"
            yield self._finding(Kind.INCONSISTENT, event, what)
        yield from self._leaked(event, known.born)

    def missed(self) -> Iterator[Finding]:
        heads = {inbox: _Heads(known) for inbox, known in self.known.items()}
        for place in self.places.values():
            holes = dict(place.holes)
            inbox = self.facts.user_of(place.stream.device), place.epoch
            if place.first is not None and place.first.change is not None:
                begin = heads[inbox].first_after(place.since) if inbox in heads else math.inf
                if begin < place.first.change:
                    holes |= dict.fromkeys(range(int(begin), place.first.change)[:MAX_NAMED], place.first)
            by_event: dict[Event, list[int]] = defaultdict(list)
            for number, event in sorted(holes.items()):
                if number not in place.late and place.stream.ended_at >= event.at + LATE_SECONDS:
                    by_event[event].append(number)
            for event, numbers in by_event.items():
                yield self._finding(Kind.MISSED_CHANGE, event, self._hole(inbox, numbers, event))

    def _count(self, place: _Place, event: Event, number: int) -> None:
        if place.first is None:
            place.first, place.last = event, number
            place.late = set()
        elif number > place.last:
            skipped = range(place.last + 1, number)
            if skipped:
                place.holes |= dict.fromkeys(skipped[:MAX_NAMED], event)
            place.last = number
        else:
            place.late.add(number)

    def _born(self, event: Event) -> float:
        """The earliest that it can have been committed: when somebody first asked for such a thing."""
        message_id = event.message.id if event.message else event.notice.message_id if event.notice else ""
        return self.facts.altered_from.get((event.name, message_id), -math.inf)

    def _leaked(self, event: Event, born: float) -> Iterator[Finding]:
        if event.message is not None:
            conversation_id = event.message.conversation_id
        else:
            conversation_id = event.notice.conversation_id if event.notice else ""
        if conversation_id not in self.facts.members:
            return  # of a scenario's own: who is in it is not written down
        user = self.facts.user_of(event.device)
        if self.facts.was_never_member(conversation_id, user, born, event.at):
            what = f"is told of {_told(event)}, and is no member of conversation {conversation_id}"
            yield self._finding(Kind.LEAKED, event, what)

    def _hole(self, inbox: Inbox, numbers: list[int], event: Event) -> str:
        seen = [self.known[inbox][number].event for number in numbers if number in self.known[inbox]]
        named = f" ({'; '.join(_told(one) for one in seen[:3])})" if seen else ""
        many = f"changes {numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"change {numbers[0]}"
        return f"{many}{named} left out before {event.change}, without a resync"

    def _finding(self, kind: Kind, event: Event, what: str) -> Finding:
        message_id = event.message.id if event.message else event.notice.message_id if event.notice else ""
        return self.facts.finding(kind, message_id, "", what, device=event.device, at=event.at)


class _Heads:
    """The changes of one user, by number: the numbers are the order of their commits."""

    def __init__(self, known: dict[int, _Known]) -> None:
        self._numbers = sorted(known)
        self._born = list(accumulate((known[number].born for number in self._numbers), max))

    def first_after(self, at: float) -> float:
        """The lowest number of which is known that it was committed after this time."""
        place = bisect_left(self._born, at)
        return self._numbers[place] if place < len(self._numbers) else math.inf


def _what(event: Event) -> tuple[str, object]:
    if event.message is not None:
        return event.name, (event.message.id, event.message.rev)
    return event.name, event.notice


def _told(event: Event) -> str:
    """A change in words."""
    if event.message is not None:
        return f"{event.name} of message {event.message.id}, rev {event.message.rev}"
    notice = event.notice
    if notice is None:
        return event.name
    about = f"message {notice.message_id}" if notice.message_id else f"conversation {notice.conversation_id}"
    return f"{event.name} of {about}, rev {notice.rev}"
