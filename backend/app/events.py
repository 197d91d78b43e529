"""What crosses Redis and the wire, defined once: the payloads, and the frames that carry them.

A frame is the bytes of one SSE event. The publisher puts exactly these bytes on a channel and a stream
writes them to the socket untouched. What its first byte says is in `docs/protocol.md`, section 3.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import asyncpg

MAX_FRAME_BYTES = 64 * 1024
NEWEST = 2**63 - 1  # a seq that nothing comes after: who asks for it is told the head alone
MAX_REACTION_USER_IDS = 100  # of one message over all its emoji; keeps a frame under MAX_FRAME_BYTES
LARGE_GROUP_MEMBERS = 100  # above: no typing, receipts to the reader alone, short conversation updates


@dataclass(frozen=True, slots=True)
class Person:
    """A user as others see one."""

    id: str
    name: str | None
    avatar_url: str | None


@dataclass(frozen=True, slots=True)
class Reaction:
    """How many reacted with one emoji, and the first of them."""

    emoji: str
    count: int
    user_ids: list[str]


@dataclass(frozen=True, slots=True)
class Message:
    """A message in its current state: the same object in REST, `new_message` and `message_edited`."""

    id: UUID
    conversation_id: UUID
    seq: int
    rev: int
    sender: Person
    client_message_id: UUID
    content: str
    reply_to_id: UUID | None
    reactions: list[Reaction]
    created_at: datetime
    edited_at: datetime | None
    deleted_at: datetime | None

    @classmethod
    def from_row(cls, row: Mapping[str, Any] | asyncpg.Record) -> Message:
        """Read a row of a query that selects the columns of `message_columns` (db/messages.py)."""
        return cls(
            id=row["id"],
            conversation_id=row["conversation_id"],
            seq=row["seq"],
            rev=row["rev"],
            sender=Person(row["sender_id"], row["sender_name"], row["sender_avatar"]),
            client_message_id=row["client_message_id"],
            content="" if row["deleted_at"] else row["content"],
            reply_to_id=row["reply_to_id"],
            reactions=reactions_from_json(row["reactions"]),
            created_at=row["created_at"],
            edited_at=row["edited_at"],
            deleted_at=row["deleted_at"],
        )


@dataclass(frozen=True, slots=True)
class Member:
    """A member as the other members see one."""

    id: str
    name: str | None
    avatar_url: str | None
    role: str
    last_read_seq: int


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation as one reader sees it; `members` holds the first 20."""

    id: UUID
    kind: str
    title: str | None
    last_seq: int
    rev: int
    last_message: Message | None
    unread: int
    last_read_seq: int
    role: str
    muted_until: datetime | None
    hidden: bool
    member_count: int
    members: list[Member]


def reactions_from_json(text: str | None) -> list[Reaction]:
    """Read what `message_reactions()` returns; past 100 user ids in a message only counts are kept."""
    if text is None:
        return []
    reactions: list[Reaction] = []
    room = MAX_REACTION_USER_IDS
    for item in orjson.loads(text):
        user_ids = item["user_ids"][:room]
        room -= len(user_ids)
        reactions.append(Reaction(item["emoji"], item["count"], user_ids))
    return reactions


def to_json(payload: object) -> bytes:
    """Encode for the wire: times in RFC 3339 with `Z`, ids as strings, no line break anywhere."""
    return orjson.dumps(payload, default=_plain, option=orjson.OPT_UTC_Z)


def _plain(value: object) -> str:
    if isinstance(value, UUID):  # asyncpg reads ids into a subclass, which orjson does not take for one
        return str(value)
    raise TypeError


@lru_cache(maxsize=200_000)
def epoch_of(database_epoch: str, user_id: str) -> str:
    """Name one history of one user's inbox: 12 characters, different for every user and every restore."""
    digest = hashlib.blake2b(f"{database_epoch}\n{user_id}".encode(), digest_size=7).digest()
    return base64.b32encode(digest).decode().lower()[:12]


# --- Frames that are published -------------------------------------------------------------------


def message_body(message: Message) -> bytes:
    """Encode a message once for all its receivers; `message_frame` adds the one line that differs."""
    return b"event: new_message\ndata: " + to_json(message) + b"\n\n"


def message_frame(epoch: str, seq: int, body: bytes) -> bytes:
    """Address an encoded message to the place `seq` of one user's inbox."""
    return b"id: %b.%d\n%b" % (epoch.encode(), seq, body)


def change_body(event: str, payload: object) -> bytes:
    """Encode a counted change (edit, delete, reaction, conversation) once for all its receivers."""
    return b"event: " + event.encode() + b"\ndata: " + to_json(payload) + b"\n\n"


def change_frame(change: int, body: bytes) -> bytes:
    """Number a change for one user: a comment, which browsers ignore and streams read."""
    return b":%d\n%b" % (change, body)


TYPING: Final = b"event: typing_status\n"  # how its frame begins


def ephemeral_frame(event: str, payload: object) -> bytes:
    """Encode an event that is neither numbered nor missed: typing, receipts, own settings."""
    return b"event: " + event.encode() + b"\ndata: " + to_json(payload) + b"\n\n"


def close_control(valid_after: datetime) -> bytes:
    """Tell every process to end a user's streams whose token was issued up to then. Never sent to a client."""
    return b"!close %d" % int(valid_after.timestamp())


PROBE_CONTROL = b"!probe "
READ_CONTROL = b"!read"  # read from PostgreSQL: a message was committed, and its notification was not sent


# --- Frames that a stream writes by itself -------------------------------------------------------


def id_block(epoch: str, seq: int) -> bytes:
    """Encode a cursor alone: browsers store it and dispatch nothing (WHATWG HTML, 9.2.6)."""
    return b"id: %b.%d\n\n" % (epoch.encode(), seq)


def retry_block(milliseconds: int) -> bytes:
    """Tell the client how long to wait before it reconnects."""
    return b"retry: %d\n\n" % milliseconds


def connected_frame(payload: Mapping[str, object]) -> bytes:
    """Acknowledge: from here on nothing addressed to the user is missed."""
    return ephemeral_frame("connected", payload)


def heartbeat_frame(server_time: datetime, head: int) -> bytes:
    """Show that the stream lives, and up to where it has delivered."""
    return ephemeral_frame("heartbeat", {"server_time": server_time, "head": head})


def resync_frame(reason: str, scope: str, cursor: str) -> bytes:
    """Say that continuity cannot be proven. `scope`: "changes" (ask `changes`) or "all" (reload)."""
    return ephemeral_frame("resync", {"reason": reason, "scope": scope, "cursor": cursor})


# --- Reading what came from Redis ----------------------------------------------------------------


class Frame:
    """A frame as it came from Redis, read once for all the streams that get it."""

    __slots__ = ("_chunk", "epoch", "kind", "number", "raw")

    def __init__(self, raw: bytes, kind: str, epoch: str = "", number: int = 0) -> None:
        """Hold `raw`; `kind` is message, change, ephemeral or control; `number` its seq or change."""
        self.raw = raw
        self.kind = kind
        self.epoch = epoch
        self.number = number
        self._chunk: bytes | None = None

    @property
    def chunk(self) -> bytes:
        """The frame as one HTTP/1.1 chunk, encoded once for all receivers (RFC 9112, 7.1)."""
        if self._chunk is None:
            self._chunk = b"%x\r\n%b\r\n" % (len(self.raw), self.raw)
        return self._chunk


class Run:
    """Messages of one user that follow each other without a hole, to be written in one go."""

    __slots__ = ("_payloads", "chunk", "epoch", "first", "last", "raw")

    def __init__(self, payloads: Sequence[bytes], epoch: str, first: int) -> None:
        """Join `payloads`, whole frames from seq `first` on; see `join`."""
        self._payloads = payloads
        self.epoch = epoch
        self.first = first
        self.last = first + len(payloads) - 1
        self.raw = b"".join(payloads)
        self.chunk = b"%x\r\n%b\r\n" % (len(self.raw), self.raw)

    def __len__(self) -> int:
        """How many messages it holds."""
        return len(self._payloads)

    @property
    def frames(self) -> list[Frame]:
        """Take it apart."""
        return [
            Frame(payload, "message", self.epoch, number) for number, payload in enumerate(self._payloads, self.first)
        ]


def read(payloads: Sequence[bytes], max_bytes: int) -> tuple[list[Frame | Run], int]:
    """Read what came for one user, in its order; gives the number of payloads that are no frames as well.

    What follows each other is joined, up to `max_bytes`; everything else stays as it is, in its place.
    """
    if len(payloads) > 1:
        run = _read_run(payloads, max_bytes)
        if run is not None:
            return [run], 0
    frames = [frame for payload in payloads if (frame := parse_frame(payload)) is not None]
    dropped = len(payloads) - len(frames)
    return (_joined(frames, max_bytes) if len(frames) > 1 else list(frames)), dropped


def _read_run(payloads: Sequence[bytes], max_bytes: int) -> Run | None:
    """Read payloads that are one run, which most are, in a third of the time; None when they are not.

    Each begins as the message that must come now does, and ends as every frame does: that is four line breaks.
    If there are no more in all of them together, none stands in the data.
    """
    first = parse_frame(payloads[0])
    if first is None or first.kind != "message":
        return None
    number = first.number
    for payload in payloads:
        if not payload.startswith(b"id: %b.%d\nevent: new_message\ndata: " % (first.epoch.encode(), number)):
            return None
        if not payload.endswith(b"\n\n"):
            return None
        number += 1
    run = Run(payloads, first.epoch, first.number)
    raw = run.raw
    if len(raw) > max_bytes or raw.count(b"\n") != 4 * len(payloads) or b"\r" in raw or b"\0" in raw:
        return None
    return run


def _joined(frames: Sequence[Frame], max_bytes: int) -> list[Frame | Run]:
    joined: list[Frame | Run] = []
    start = 0
    while start < len(frames):
        end = _end_of_run(frames, start, max_bytes)
        first = frames[start]
        if end > start + 1:
            joined.append(Run([frame.raw for frame in frames[start:end]], first.epoch, first.number))
        else:
            joined.append(first)
        start = end
    return joined


def _end_of_run(frames: Sequence[Frame], start: int, max_bytes: int) -> int:
    last = frames[start]
    size = len(last.raw)
    end = start + 1
    if last.kind != "message":
        return end
    for frame in frames[end:]:
        size += len(frame.raw)
        if frame.kind != "message" or frame.number != last.number + 1 or frame.epoch != last.epoch or size > max_bytes:
            break
        last = frame
        end += 1
    return end


# The lines before the data, of each kind: numbered by a cursor, by a comment, or not at all.
_HEAD = re.compile(rb"(?:id: ([0-9a-z]{1,12})\.([0-9]{1,19})\n|:([0-9]{1,19})\n)?event: [a-z_]{1,40}\ndata: ")


def parse_frame(raw: bytes) -> Frame | None:
    """Read a frame; None for anything that `publisher.py` would not have written.

    Redis is shared: a foreign payload must not be able to break the stream of a client, so a frame is one
    event with one line of data, without a carriage return or NUL anywhere.
    """
    head = _HEAD.match(raw)
    if head is None:
        return Frame(raw, "control") if raw[:1] == b"!" else None
    # The first line break in the data is the first of the two that end the frame.
    if raw.find(b"\n", head.end()) != len(raw) - 2 or raw[-1:] != b"\n" or len(raw) >= MAX_FRAME_BYTES:
        return None
    if b"\r" in raw or b"\0" in raw:
        return None
    epoch, seq, change = head.groups()
    if seq is not None:
        return Frame(raw, "message", epoch.decode(), int(seq))
    return Frame(raw, "ephemeral") if change is None else Frame(raw, "change", "", int(change))
