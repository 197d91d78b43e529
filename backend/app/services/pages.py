"""Pages: what every list answers, and the places in lists that clients hand back unread."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar
from uuid import UUID

from app.db.conversations import Place
from app.errors import FieldError, InvalidRequestError

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PLACE_BYTES = 8 + 16


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list; `next_cursor` asks for the part after it, when `has_more`."""

    items: list[T]
    next_cursor: str | None
    has_more: bool


@dataclass(frozen=True, slots=True)
class HistoryPage(Page[T]):
    """A page of messages with the conversation's rev of the same moment."""

    rev: int


def cursor_of(place: Place) -> str:
    """Write a place as text that says nothing to its reader."""
    microseconds = (place.active_at - _EPOCH) // _MICROSECOND
    packed = microseconds.to_bytes(8, "big", signed=True) + place.conversation_id.bytes
    return base64.urlsafe_b64encode(packed).decode()


def place_of(cursor: str) -> Place:
    """Read what `cursor_of` wrote. Raises InvalidRequestError naming `before`."""
    try:
        packed = base64.b64decode(cursor, altchars=b"-_", validate=True)
        if len(packed) == _PLACE_BYTES:
            microseconds = int.from_bytes(packed[:8], "big", signed=True)
            return Place(_EPOCH + microseconds * _MICROSECOND, UUID(bytes=packed[8:]))
    except (ValueError, OverflowError, binascii.Error):
        pass
    raise InvalidRequestError(FieldError("before", "must be the next_cursor of a page"))
