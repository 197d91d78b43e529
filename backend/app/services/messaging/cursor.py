"""Order, decided: what to do with number n when the last one delivered is known. Pure.

A cursor is `<epoch>.<seq>`: the epoch names one history of one user's inbox, the seq a place in it.
Seqs are dense, so `last + 1` is the only number that may follow; anything higher is a proven hole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

MAX_SEQ = 2**63 - 1
_GRAMMAR = re.compile(r"([0-9a-z]{1,12})\.(0|[1-9][0-9]{0,18})")


class Verdict(Enum):
    """What to do with a numbered frame."""

    DELIVER = auto()
    DUPLICATE = auto()
    GAP = auto()
    RESYNC = auto()


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in one user's inbox: what an SSE `id:` holds."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        """Write it as it stands on the wire."""
        return f"{self.epoch}.{self.seq}"


def parse_cursor(text: str) -> Cursor | None:
    """Read a cursor; None for anything that the server would not have written (up to 2^63-1)."""
    match = _GRAMMAR.fullmatch(text)
    if match is None or int(match[2]) > MAX_SEQ:
        return None
    return Cursor(match[1], int(match[2]))


def judge(last_epoch: str, last: int, epoch: str, number: int) -> Verdict:
    """Decide about `number`, given the last one delivered. Serves messages and changes alike."""
    if epoch != last_epoch:
        return Verdict.RESYNC
    if number == last + 1:
        return Verdict.DELIVER
    return Verdict.DUPLICATE if number <= last else Verdict.GAP
