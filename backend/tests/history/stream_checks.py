"""What the streams of one device must look like by themselves: order, density, nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.history.findings import Finding, Kind
from tests.history.records import Event, History, parse_cursor


@dataclass(slots=True)
class _Place:
    """How far one stream has come. `may_jump` after a resync, until the next id says where it goes on."""

    epoch: str | None
    seq: int | None
    may_jump: bool = False
    is_first: bool = True
    left_out: dict[int, Event] = field(default_factory=dict)


def check_streams(history: History) -> list[Finding]:
    """Doubled, non-monotonic, skipped, inconsistent."""
    checks = _StreamChecks(history)
    found = [finding for event in history.events for finding in checks.event(event)]
    return [*found, *checks.left_out()]


class _StreamChecks:
    def __init__(self, history: History) -> None:
        self.history = history
        self.since: dict[tuple[str, str], float] = {}
        for attempt in history.attempts:
            self.since.setdefault((attempt.sender, attempt.key), attempt.invoked_at)
        self.places = {stream.number: _Place(*parse_cursor(stream.cursor)) for stream in history.streams}
        self.handed: dict[str, dict[tuple[str, str], str]] = {name: {} for name in history.devices}
        self.in_conversation: dict[tuple[str, str], int] = {}
        self.inboxes: dict[tuple[str, str | None], dict[int, tuple[str, str]]] = {}

    def event(self, event: Event) -> Iterator[Finding]:
        place = self.places[event.stream]
        if event.name == "resync" and event.scope == "all":
            place.may_jump = True
        if event.name == "heartbeat":
            yield from self._delivered(event, place)
        if event.name not in {"", "new_message"} or event.seq is None:
            return
        found = list(self._doubled(event))
        if not found:
            found = [*self._order(event, place), *self._inconsistent(event)]
        yield from found
        self._move(event, place)

    def left_out(self) -> Iterator[Finding]:
        """What a stream jumped over and never came back to."""
        for place in self.places.values():
            by_event: dict[Event, list[int]] = {}
            for seq, event in place.left_out.items():
                by_event.setdefault(event, []).append(seq)
            for event, seqs in by_event.items():
                many = f"seqs {min(seqs)} to {max(seqs)}" if len(seqs) > 1 else f"seq {seqs[0]}"
                yield self._finding(Kind.SKIPPED, event, f"{many} left out before {event.seq}, without a resync")

    def _doubled(self, event: Event) -> Iterator[Finding]:
        if event.message is None:
            return
        handed, key = self.handed[event.device], (event.message.sender, event.message.key)
        before = handed.get(key)
        if before is None:
            handed[key] = event.message.id
        elif before == event.message.id:
            yield self._finding(Kind.DOUBLED, event, f"handed over again, as seq {event.seq}")
        else:
            yield self._finding(Kind.DOUBLED, event, f"handed over before as message {before}")

    def _order(self, event: Event, place: _Place) -> Iterator[Finding]:
        assert event.seq is not None
        if place.seq is not None and not place.may_jump:
            if event.epoch != place.epoch:
                yield self._finding(Kind.SKIPPED, event, f"epoch {place.epoch} became {event.epoch} without a resync")
                return
            # The first id-only block repeats the cursor; a later one stands for what the user may no longer see.
            repeats = event.message is None and event.seq == place.seq
            if event.seq <= place.seq and not repeats:
                place.left_out.pop(event.seq, None)
                yield self._finding(Kind.NON_MONOTONIC, event, f"seq {event.seq} after {place.seq}")
                return
            if self.history.is_dense:
                place.left_out |= dict.fromkeys(_jumped_over(event, place), event)
        if event.message is not None:
            key = event.device, event.message.conversation_id
            before = self.in_conversation.get(key, 0)
            if event.message.seq <= before:
                what = f"seq {event.message.seq} of its conversation after {before}"
                yield self._finding(Kind.NON_MONOTONIC, event, what)
            self.in_conversation[key] = max(before, event.message.seq)

    def _delivered(self, event: Event, place: _Place) -> Iterator[Finding]:
        """A heartbeat says up to where the server has delivered."""
        delivered = event.notice.seq if event.notice else None
        if delivered is None or place.seq is None or place.may_jump or delivered <= place.seq:
            return
        what = f"a heartbeat says that seq {delivered} has been delivered; {place.seq} has"
        yield self._finding(Kind.SKIPPED, event, what)

    def _inconsistent(self, event: Event) -> Iterator[Finding]:
        if event.message is None or event.seq is None:
            return
        inbox = self.inboxes.setdefault((self.history.devices[event.device].user, event.epoch), {})
        there, device = inbox.setdefault(event.seq, (event.message.id, event.device))
        if there != event.message.id:
            yield self._finding(Kind.INCONSISTENT, event, f"seq {event.seq} was message {there} on {device}")

    def _move(self, event: Event, place: _Place) -> None:
        assert event.seq is not None
        is_jump = place.seq is None or place.may_jump or event.epoch != place.epoch
        place.seq = event.seq if is_jump else max(event.seq, place.seq or 0)
        place.epoch, place.may_jump, place.is_first = event.epoch, False, False

    def _finding(self, kind: Kind, event: Event, what: str) -> Finding:
        message = event.message
        user = self.history.devices[event.device].user
        since = self.since.get((message.sender, message.key)) if message else None
        return Finding(kind, message.id if message else "", user, event.device, what, event.at, since)


def _jumped_over(event: Event, place: _Place) -> range:
    """The seqs between this id and the one before that nothing stands for."""
    assert event.seq is not None
    assert place.seq is not None
    if event.message is not None:
        return range(place.seq + 1, event.seq)
    return range(place.seq + 1, event.seq + 1) if place.is_first else range(0)
