"""Counting events in the bytes of an SSE stream, and proving their order. Pure: no socket, no clock.

This is the inner loop of the load client: one core must take more than 150,000 events a second and leave room
for the rest. So nothing is parsed that need not be: a piece of the stream is searched for numbered events by
one regular expression, and its numbers are compared with the ones that must come. Comparing every number, and not
only the first, the last and the count, costs 0.3 µs an event and is what makes the proof one: 1, 3, 2, 4 has the
right ends and the right count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncio import Future

MAX_REMEMBERED: Final = 100_000  # missing numbers of one stream, kept to tell late from doubled


@dataclass(frozen=True, slots=True)
class Rules:
    """What is counted in a stream.

    `marker`: stands once in every event that counts; it must not overlap itself.
    `numbers`: matches every event that counts and captures its number, which must rise by 1; None to count only.
    `any_event`: stands once in every event of any kind. Where `numbers` has not matched as often, and until the
    stream has said where it begins, a piece is read line by line: heartbeats, cursors, `resync`, as Gapless writes
    them. None, for other servers: what is not numbered does not matter.
    `opened_by`: what an open stream begins with; None: the head of the response.
    `event_end`: the blank line that ends an event, as the server writes it.
    """

    marker: bytes
    numbers: re.Pattern[bytes] | None = None
    any_event: bytes | None = None
    opened_by: bytes | None = None
    event_end: bytes = b"\n\n"


# Only `new_message` has an `id:` (docs/protocol.md, 3.2), and no line of JSON holds a line break: what looks like
# the beginning of a message is one.
GAPLESS: Final = Rules(
    marker=b"\nevent: new_message\n",
    # The second way is a cursor alone, at the end of a piece without its last line break: it makes the count differ
    # from that of the events, so that the piece is read line by line.
    numbers=re.compile(rb"\nid: [0-9a-z]+\.(\d+)\n(?:event: new_message\n|\n|\Z)"),
    any_event=b"\nevent: ",
    opened_by=b"event: connected\n",
)


@dataclass(slots=True)
class Tally:
    """What all streams together have received; every stream adds to the same one."""

    received: int = 0
    lost: int = 0  # numbers that were passed over and have not come since
    doubled: int = 0
    out_of_order: int = 0  # numbers that came after a higher one
    resyncs: int = 0
    heartbeats: int = 0
    refused: int = 0  # answered with another status than 200
    ended: int = 0  # streams that the server, or the network, ended
    turned_away: int = 0  # streams that were told to come back later
    opened: int = 0  # streams that are open; one that is opened again counts again
    waiting_for: int | None = None
    waiter: Future[None] | None = field(default=None, repr=False)

    def faults(self) -> dict[str, int]:
        """Give what must be zero, by name."""
        names = ("lost", "doubled", "out_of_order", "resyncs", "refused", "ended")
        return {name: getattr(self, name) for name in names}

    def add(self, count: int) -> None:
        """Count deliveries, and wake whoever waits for that many."""
        self.received += count
        if self.waiting_for is not None and self.received >= self.waiting_for:
            self.waiting_for = None
            if self.waiter is not None and not self.waiter.done():
                self.waiter.set_result(None)

    def copy(self) -> Tally:
        """Give the counts as they are now."""
        counts = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), int)}
        return Tally(**{**counts, "waiting_for": None})


class Counter:
    """What one stream has received."""

    __slots__ = (
        "_carry",
        "_is_start",
        "_missing",
        "_rules",
        "epoch",
        "is_open",
        "last",
        "received",
        "tally",
    )

    def __init__(self, rules: Rules, tally: Tally) -> None:
        """Count by `rules` into `tally`."""
        self.tally = tally
        self.received = 0
        self.last: int | None = None  # the newest number; None until the stream has said where it begins
        self.epoch = b""  # what stands before the number in an id; for a cursor
        self.is_open = False
        self._rules = rules
        self._carry = b""
        self._is_start = True  # no cursor has been read in this response
        self._missing: set[int] | None = None

    def restart(self) -> None:
        """Begin to read another response from where this one has ended."""
        self._carry = b""
        self._is_start = True
        self.is_open = False

    def feed(self, data: bytes) -> bytes:
        """Count what `data` completes. Gives the piece that was counted: whole events only."""
        rules = self._rules
        # Servers write whole events, and reads mostly end where a write did: then nothing is copied.
        if not self._carry and data.endswith(rules.event_end + b"\r\n"):
            piece = data
        else:
            buffer = self._carry + data
            # The last line break stays behind: it is the beginning of what every pattern begins with.
            cut = buffer.rfind(rules.event_end) + len(rules.event_end) - 1
            if cut < len(rules.event_end) - 1:
                self._carry = buffer
                return b""
            piece, self._carry = buffer[:cut], buffer[cut:]
        if not self.is_open:
            self.is_open = rules.opened_by is None or rules.opened_by in piece
            self.tally.opened += self.is_open
        if rules.numbers is None:
            count = piece.count(rules.marker)
        else:
            found = rules.numbers.findall(piece)
            count = len(found)
            is_mixed = rules.any_event is not None and (self._is_start or count != piece.count(rules.any_event))
            # A heartbeat and a cursor alone in one piece make up for each other, and the cursor moves all the same.
            if is_mixed or (count and not self._is_next(found)):
                count = self._read_slowly(piece)
        if count:
            self.received += count
            self.tally.add(count)
        return piece

    def _is_next(self, found: list[bytes]) -> bool:
        """Compare the numbers with the ones that must come; nothing is noted unless they are those."""
        first = int(found[0])
        last = first + len(found) - 1
        if self.last is not None and first != self.last + 1:
            return False
        if len(found) > 1 and list(map(int, found)) != list(range(first, last + 1)):
            return False
        self.last = last
        return True

    def _take(self, number: int) -> None:
        """Take a number where something is wrong, and find out what."""
        expected = number if self.last is None else self.last + 1
        if number >= expected:
            if number > expected:
                self.tally.lost += number - expected
                self._missing = self._missing or set()
                self._missing.update(range(expected, min(number, expected + MAX_REMEMBERED)))
            self.last = number
        elif self._missing and number in self._missing:
            self._missing.discard(number)
            self.tally.lost -= 1
            self.tally.out_of_order += 1
        else:
            self.tally.doubled += 1

    def _read_slowly(self, piece: bytes) -> int:
        """Read a piece that holds more than numbered events, in its order. Gives the number of those."""
        rules = self._rules
        count = 0
        for block in (b"\n" + piece).split(rules.event_end):
            event = b"\n" + block + b"\n"
            if rules.marker in event:
                count += 1
                numbered = rules.numbers.search(event) if rules.numbers is not None else None
                if numbered is not None:
                    self._take(int(numbered[1]))
                self._learn_epoch(event)
            elif b"\nevent: heartbeat\n" in event:
                self.tally.heartbeats += 1
            elif b"\nevent: resync\n" in event:
                self.tally.resyncs += 1
                if b'"scope":"all"' in event:
                    self.last, self._is_start = None, True  # the block with the new cursor follows
            elif b"\nevent: " not in event and b"\nid: " in event:
                self._learn_epoch(event)
                self._start_from(int(event.rpartition(b".")[2].split(b"\n")[0]))
        return count

    def _start_from(self, number: int) -> None:
        """Take a cursor that comes alone: where a replay starts, or the place of a message that is not shown."""
        is_start, self._is_start = self._is_start, False
        if self.last is None:
            self.last = number
        elif is_start and number > self.last:
            self._take(number + 1)  # what lies between will not come, and `number` itself neither
            self.last = number
        elif number > self.last:
            self._take(number)

    def _learn_epoch(self, event: bytes) -> None:
        if not self.epoch:
            self.epoch = event.partition(b"\nid: ")[2].partition(b".")[0]
