"""What a run leaves behind. All times are seconds of the monotonic clock of one machine.

Nothing here knows the server: a history is what clients did, saw and hold, and what REST says in the end.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

# Above, nobody is told how far others have read (protocol, 6.6).
LARGE_GROUP_MEMBERS = 100

AlterationKind = Literal["edit", "delete", "react", "unreact"]


class Outcome(enum.StrEnum):
    """What the sender knows about one POST."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "unknown"


def is_refusal(status: int) -> bool:
    """Whether an answer says that nothing was done, and that it will not be."""
    return 400 <= status < 500 and status not in {408, 429}


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
    is_silent: bool = False


class Call(NamedTuple):
    """One request that sent no message. `route` is a template.

    `is_silent`: no answer came, and the connection did not break either.
    """

    route: str
    user: str
    invoked_at: float
    ended_at: float
    status: int
    is_silent: bool = False
    conversation_id: str = ""


@dataclass(frozen=True, slots=True)
class Alteration:
    """One request to edit or delete a message, to react to it or to take that back; `content` is text or emoji."""

    kind: AlterationKind
    message_id: str
    user: str
    content: str
    invoked_at: float
    ended_at: float
    status: int

    @property
    def is_acknowledged(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_refused(self) -> bool:
        return is_refusal(self.status)


class ReadMark(NamedTuple):
    """One request to have read up to `seq`; `answered` is where the reader then was, None where it is unknown."""

    conversation_id: str
    user: str
    seq: int
    invoked_at: float
    ended_at: float
    answered: int | None


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


class Notice(NamedTuple):
    """What an event says that carries no message; what it does not say is empty.

    `user` reads or types; `seq` is how far that user has read, or, of a heartbeat, what was delivered.
    """

    conversation_id: str = ""
    message_id: str = ""
    user: str = ""
    rev: int | None = None
    seq: int | None = None


class Event(NamedTuple):
    """One block of a stream. `name` is empty for a block that only moves the cursor; `change` counts changes."""

    at: float
    device: str
    stream: int
    name: str
    epoch: str | None = None
    seq: int | None = None
    message: Message | None = None
    scope: str = ""
    change: int | None = None
    notice: Notice | None = None


class Loaded(NamedTuple):
    """A message that a device took from REST, not from its stream."""

    at: float
    device: str
    message: Message


@dataclass(slots=True)
class Stream:
    """One response of the stream route; `status` is 0 until it begins.

    `silent_since`: when it was last heard, if the device gave it up because it was silent for too long.
    `retry_seconds`: after which it was told, last, to come back.
    """

    number: int
    device: str
    cursor: str | None
    opened_at: float
    status: int = 0
    ended_at: float = math.inf
    silent_since: float | None = None
    retry_seconds: float | None = None


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


class Listed(NamedTuple):
    """A conversation in the list of one user, as REST gives it in the end.

    `positions`: how far each member has read, as far as the list says.
    """

    conversation_id: str
    last_seq: int
    rev: int
    last_message: Message | None
    unread: int
    last_read_seq: int
    positions: tuple[tuple[str, int], ...] = ()


class View(NamedTuple):
    """A whole conversation as one member reads it by REST in the end."""

    user: str
    conversation_id: str
    messages: tuple[Message, ...]


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
    # How far it shows others to have read, by conversation and user.
    positions: dict[str, dict[tuple[str, str], int]] = field(default_factory=dict)
    # What REST says in the end, when all is healed and idle: to the owners, to others, and of whole lists.
    store: list[Message] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    listings: dict[str, list[Listed]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    alterations: list[Alteration] = field(default_factory=list)
    read_marks: list[ReadMark] = field(default_factory=list)
    # When devices that had left for a while came back.
    returns: dict[str, float] = field(default_factory=dict)
    # Last words that had not come to a device when time was up, if any: by device, how many.
    unheard: dict[str, int] = field(default_factory=dict)
    # Positions that devices had to ask for in the end, since no receipt had come.
    positions_asked: int = 0
    # Faults, as (from, to, what was done): for reports and pictures.
    faults: list[tuple[float, float, str]] = field(default_factory=list)
    # When a server process, or the way to it, was made to say nothing, as (from, to).
    mutes: list[tuple[float, float]] = field(default_factory=list)


def parse_cursor(cursor: str | None) -> tuple[str | None, int | None]:
    """Split `<epoch>.<seq>`; (None, None) where there is none."""
    if not cursor:
        return None, None
    epoch, _, seq = cursor.rpartition(".")
    return epoch, int(seq)
