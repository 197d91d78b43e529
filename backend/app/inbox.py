"""What a stream reads of an inbox: the values that `db/` gives and `services/messaging/` takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

    from app.events import Message

MAX_MISSED: Final = 1000  # messages that are replayed; past it a client reloads faster


@dataclass(frozen=True, slots=True)
class Missed:
    """What PostgreSQL says about one inbox after a seq, in one snapshot.

    `messages` holds a page of (seq, message), ascending; None for a message of a conversation that the
    user has left. It begins at the next seq and is dense, unless retention has taken what is missing.
    """

    database_epoch: str
    head: int
    change: int
    tokens_valid_after: datetime | None
    messages: Sequence[tuple[int, Message | None]]


@dataclass(frozen=True, slots=True)
class Head:
    """What the head check reads of one user."""

    database_epoch: str
    head: int
    change: int
    tokens_valid_after: datetime | None


# (user id, seq) → what came after it; None for a user who has no inbox yet. Raises UnavailableError.
FetchMessagesAfter = Callable[[str, int], Awaitable[Missed | None]]

# user ids → their heads, in one statement. Raises UnavailableError.
FetchHeads = Callable[[Sequence[str]], Awaitable[dict[str, Head]]]
