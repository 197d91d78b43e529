"""What a run leaves behind. All times are seconds of the monotonic clock of one machine.

Nothing here knows the server: a history is what clients did, saw and hold, and what REST says in the end.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Outcome(enum.StrEnum):
    """What the sender knows about one POST."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One POST of a message; `status` is 0 where no answer came."""

    sender: str
    key: str
    conversation_id: str
    content: str
    invoked_at: float
    ended_at: float
    outcome: Outcome
    status: int = 0
    message_id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One state of a message, as an event, a page or a device has it."""

    id: str
    conversation_id: str
    seq: int
    rev: int
    sender: str
    key: str
    content: str
    is_edited: bool = False
    is_deleted: bool = False
    reactions: tuple[tuple[str, int], ...] = ()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Message:
        return cls(
            id=data["id"],
            conversation_id=data["conversation_id"],
            seq=data["seq"],
            rev=data["rev"],
            sender=data["sender"]["id"],
            key=data["client_message_id"],
            content=data["content"],
            is_edited=data["edited_at"] is not None,
            is_deleted=data["deleted_at"] is not None,
            reactions=reactions_of(data["reactions"]),
        )


def reactions_of(items: list[dict[str, Any]]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((item["emoji"], item["count"]) for item in items))


class Event(NamedTuple):
    """One block of a stream. `name` is empty for a block that only moves the cursor."""

    at: float
    device: str
    stream: int
    name: str
    epoch: str | None = None
    seq: int | None = None
    message: Message | None = None
    scope: str = ""


class Loaded(NamedTuple):
    """A message that a device took from REST, not from its stream."""

    at: float
    device: str
    message: Message


@dataclass(slots=True)
class Stream:
    """One response of the stream route; `status` is 0 until it begins."""

    number: int
    device: str
    cursor: str | None
    opened_at: float
    status: int = 0
    ended_at: float = math.inf


@dataclass(frozen=True, slots=True)
class Device:
    """One client of a user. One that is not present at the end may lack messages."""

    name: str
    user: str
    is_present: bool = True


@dataclass(slots=True)
class Membership:
    """A user's time in a conversation. Each edge lies between the call and its answer."""

    conversation_id: str
    user: str
    joined_from: float
    joined_by: float
    left_from: float = math.inf
    left_by: float = math.inf


@dataclass(slots=True)
class History:
    """A whole run. `is_dense`: cursors of one user count his messages from 1 without a hole."""

    seed: int
    is_dense: bool = True
    devices: dict[str, Device] = field(default_factory=dict)
    memberships: list[Membership] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    loads: list[Loaded] = field(default_factory=list)
    # What each device shows in the end, by message id.
    states: dict[str, dict[str, Message]] = field(default_factory=dict)
    # What REST says in the end, when all is healed and idle.
    store: list[Message] = field(default_factory=list)
    # Faults, as (from, to, what was done): for reports and pictures.
    faults: list[tuple[float, float, str]] = field(default_factory=list)


def parse_cursor(cursor: str | None) -> tuple[str | None, int | None]:
    """Split `<epoch>.<seq>`; (None, None) where there is none."""
    if not cursor:
        return None, None
    epoch, _, seq = cursor.rpartition(".")
    return epoch, int(seq)
